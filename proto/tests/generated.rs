//! The committed code in `src/generated` is what the protos give: regenerated and compared.
//! `UPDATE_EXPECT=1 cargo test -p turnfleet-proto --test generated` rewrites it.

use std::fs;
use std::path::Path;

const PROTOS: [&str; 4] = [
    "turnfleet/api/v1/operator.proto",
    "turnfleet/fleet/v1/fleet.proto",
    "turnfleet/fleet/v1/peer.proto",
    "turnfleet/store/v1/store.proto",
];

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(PROTOS, [root]).unwrap();
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        // Shared by the sessions of all nodes.
        .bytes(".turnfleet.fleet.v1.Section")
        .out_dir(fresh.path())
        .compile_fds(descriptors)
        .unwrap();
    for file in [
        "turnfleet.api.v1.rs",
        "turnfleet.fleet.v1.rs",
        "turnfleet.store.v1.rs",
    ] {
        let committed = root.join("src/generated").join(file);
        let fresh = fs::read_to_string(fresh.path().join(file)).unwrap();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&committed, &fresh).unwrap();
        }
        let committed = fs::read_to_string(&committed).unwrap_or_default();
        assert!(
            committed == fresh,
            "{file} is stale: run with UPDATE_EXPECT=1 and commit it"
        );
    }
}
