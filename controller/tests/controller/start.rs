//! A controller that starts again with another configuration.

use std::path::Path;

use tokio::runtime::Runtime;
use turnfleet_controller::Controller;
use turnfleet_controller::config::{Config, RawApiToken, RawConfig, RawUser};

/// As many as a configuration may have.
const MOST: usize = 1024;

/// As many users and API tokens as there may be, named after `generation`.
fn full(state: &Path, generation: &str) -> Config {
    let user = |number| RawUser {
        name: format!("{generation}-{number}"),
        password: "north".to_owned(),
    };
    let token = |number| RawApiToken {
        name: format!("{generation}-{number}"),
        token: Some(format!("{generation}-0123456789abcdef-{number}")),
        token_file: None,
        scopes: vec!["viewer".to_owned()],
        tenant: None,
    };
    let mut raw = RawConfig {
        state_dir: state.to_owned(),
        users: (0..MOST).map(user).collect(),
        api_tokens: (0..MOST).map(token).collect(),
        ..RawConfig::default()
    };
    raw.http.address = "127.0.0.1:0".to_owned();
    raw.grpc.address = "127.0.0.1:0".to_owned();
    raw.try_into().unwrap()
}

#[test]
fn a_start_may_replace_every_user_and_token() {
    let state = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    for generation in ["first", "second"] {
        runtime.block_on(async {
            let config = full(state.path(), generation);
            let controller = Controller::start(config).await.unwrap();
            let last = format!("{generation}-0123456789abcdef-{}", MOST - 1);
            assert!(controller.view().bearer(&last).is_some());
            controller.stop().await;
        });
    }
}
