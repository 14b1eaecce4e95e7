//! What the little `protoc` hands out are the protos of the etcd-client that is built.
//! `UPDATE_EXPECT=1 cargo test -p xtask --test protoc` rewrites it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use protox::prost::Message as _;

/// As etcd-client's build script names them.
const PROTOS: [&str; 5] = [
    "etcd/api/authpb/auth.proto",
    "etcd/api/etcdserverpb/rpc.proto",
    "etcd/api/mvccpb/kv.proto",
    "etcd/server/etcdserver/api/v3election/v3electionpb/v3election.proto",
    "etcd/server/etcdserver/api/v3lock/v3lockpb/v3lock.proto",
];

/// The folder of the etcd-client that the workspace builds with.
fn etcd_client() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages
        .iter()
        .find(|package| package["name"] == "etcd-client");
    let manifest = package.unwrap()["manifest_path"].as_str().unwrap();
    Path::new(manifest).parent().unwrap().to_owned()
}

#[test]
fn the_descriptors_are_those_of_the_protos() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("protoc/etcd.binpb");
    let mut compiler = protox::Compiler::new([etcd_client().join("proto")]).unwrap();
    compiler.include_imports(true);
    compiler.open_files(PROTOS).unwrap();
    let fresh = compiler.file_descriptor_set().encode_to_vec();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&committed, &fresh).unwrap();
    }
    assert!(
        fs::read(&committed).unwrap_or_default() == fresh,
        "xtask/protoc/etcd.binpb is stale: run with UPDATE_EXPECT=1 and commit it"
    );
}
