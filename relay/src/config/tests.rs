use super::*;

fn raw() -> RawConfig {
    RawConfig {
        node_id: "relay-a".into(),
        ..RawConfig::default()
    }
}

fn listener(transport: &str, address: &str) -> RawListener {
    RawListener {
        transport: transport.into(),
        address: address.into(),
        ..RawListener::default()
    }
}

#[track_caller]
fn refused(change: impl FnOnce(&mut RawConfig)) -> Vec<String> {
    let mut raw = raw();
    change(&mut raw);
    let errors = Config::try_from(raw).unwrap_err();
    errors
        .0
        .into_iter()
        .map(|error| error.key().to_owned())
        .collect()
}

#[test]
fn the_defaults_are_a_configuration() {
    let config = Config::try_from(raw()).unwrap();
    assert_eq!(config.listeners.len(), 4);
    assert!(config.shards >= 1 && config.warnings.is_empty());
    assert_eq!(config.limits.allocations, None);
}

#[test]
fn every_mistake_is_told_at_once_with_key_value_and_expectation() {
    let mut raw = raw();
    raw.node_id = "Relay A".into();
    raw.region = "a/b".into();
    raw.hostname = vec!["a b".into()];
    raw.controller.endpoints = vec!["ftp://x".into()];
    raw.listeners = vec![listener("sctp", "1.2.3.4")];
    raw.public_ips = vec!["203.0.113.1/fd00::1".into()];
    raw.trusted_sources = vec!["10.0.0.0/33".into()];
    raw.nonce_lifetime_seconds = 7200;
    raw.stream.write_queue_bytes = 1;
    raw.metrics.address = "9641".into();
    raw.log.format = "xml".into();
    let errors = Config::try_from(raw).unwrap_err();
    let keys: Vec<&str> = errors.0.iter().map(|error| error.key()).collect();
    assert_eq!(
        keys,
        [
            "node_id",
            "region",
            "hostname[0]",
            "controller.endpoints[0]",
            "listeners[0].transport",
            "listeners[0].address",
            "public_ips[0]",
            "trusted_sources[0]",
            "stream.write_queue_bytes",
            "nonce_lifetime_seconds",
            "metrics.address",
            "log.format",
        ]
    );
    let text = errors.to_string();
    assert!(text.contains("listeners[0].transport = sctp: expected udp, tcp, tls or tcp+tls\n"));
}

#[test]
fn plain_http_is_for_loopback_only() {
    let endpoint = |text: &str| {
        let mut raw = raw();
        raw.controller.endpoints = vec![text.into()];
        Config::try_from(raw)
    };
    for text in [
        "http://127.0.0.1:8081",
        "http://[::1]:8081",
        "http://localhost:8081/",
    ] {
        assert!(endpoint(text).is_ok(), "{text}");
    }
    for text in ["http://192.0.2.1:8081", "http://controller:8081"] {
        let errors = endpoint(text).unwrap_err();
        assert!(errors.to_string().contains("plain http"), "{errors}");
    }
    let errors = endpoint("https://controller:8081").unwrap_err();
    assert_eq!(errors.0[0].key(), "controller.ca");
}

#[test]
fn a_tls_listener_needs_certificate_and_key() {
    let keys = refused(|raw| raw.listeners = vec![listener("tls", "0.0.0.0:5349")]);
    assert_eq!(keys, ["tls.certificate", "tls.key"]);
    let mut unused = raw();
    unused.tls.certificate = "/nowhere".into();
    assert_eq!(Config::try_from(unused).unwrap().warnings[0].key, "tls");
}

#[test]
fn a_certificate_is_of_files_or_the_fleets() {
    let with = |change: fn(&mut RawTls)| {
        let mut raw = RawConfig {
            listeners: vec![listener("tls", "0.0.0.0:5349")],
            ..raw()
        };
        change(&mut raw.tls);
        Config::try_from(raw)
    };
    let refused = |change: fn(&mut RawTls)| with(change).unwrap_err().to_string();
    let fleets = with(|tls| {
        tls.from_fleet = true;
        tls.http_challenges = vec!["0.0.0.0:80".into()];
    });
    let fleets = fleets.unwrap();
    assert!(fleets.tls.is_none());
    let places = fleets.fleet_tls.unwrap().http_challenges;
    assert_eq!(places, ["0.0.0.0:80".parse::<SocketAddr>().unwrap()]);
    let both = refused(|tls| (tls.from_fleet, tls.key) = (true, "/dev/null".into()));
    assert!(both.contains("tls.key"), "{both}");
    let nowhere = refused(|tls| {
        tls.from_fleet = true;
        tls.http_challenges = vec!["here".into()];
    });
    assert!(nowhere.contains("tls.http_challenges[0]"), "{nowhere}");
    let alone = refused(|tls| {
        (tls.certificate, tls.key) = ("/dev/null".into(), "/dev/null".into());
        tls.http_challenges = vec!["0.0.0.0:80".into()];
    });
    assert!(alone.contains("tls.http_challenges"), "{alone}");
}

#[test]
fn tcp_and_tls_cannot_share_a_port() {
    let pair = |a, b| vec![listener(a, "192.0.2.1:1"), listener(b, "192.0.2.1:1")];
    assert!(!refused(|raw| raw.listeners = pair("tcp", "tcp")).is_empty());
    assert!(!refused(|raw| raw.listeners = pair("udp", "udp")).is_empty());
    let mut raw = raw();
    raw.listeners = pair("udp", "tcp");
    assert!(Config::try_from(raw).is_ok());
}

#[test]
fn a_node_with_tls_takes_it_on_tcp_ports_too_and_announces_it_where_told() {
    let mut raw = raw();
    raw.listeners = vec![
        listener("udp", "192.0.2.1:1"),
        listener("tcp", "192.0.2.1:1"),
    ];
    let takes_tls = |raw: &RawConfig| {
        let listeners = Config::try_from(raw.clone()).unwrap().listeners;
        let of = |it: &Listener| (it.takes_tls(), it.transports().count());
        listeners.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(takes_tls(&raw), [(false, 1), (false, 1)]);
    raw.tls.certificate = "/dev/null".into();
    raw.tls.key = "/dev/null".into();
    raw.listeners.push(listener("tls", "192.0.2.1:2"));
    raw.listeners.push(listener("tcp+tls", "192.0.2.1:3"));
    let all = [(false, 1), (true, 1), (true, 1), (true, 2)];
    assert_eq!(takes_tls(&raw), all);
}

#[test]
fn what_stands_before_turn_fits_the_transport() {
    let with = |transport: &str, from: &str, backend: &str| {
        let mut raw = raw();
        raw.tls.certificate = "/dev/null".into();
        raw.tls.key = "/dev/null".into();
        raw.listeners = vec![RawListener {
            proxy_protocol_from: vec![from.to_owned()],
            https_backend: backend.into(),
            ..listener(transport, "192.0.2.1:443")
        }];
        Config::try_from(raw)
    };
    let both = with("tcp+tls", "10.0.0.0/8", "127.0.0.1:8443").unwrap();
    let [only] = &both.listeners[..] else {
        panic!("one listener");
    };
    assert_eq!(only.to_string(), "tcp+tls 192.0.2.1:443");
    assert!(only.front.admits("10.1.2.3".parse().unwrap()));
    assert!(!only.front.admits("192.0.2.1".parse().unwrap()));
    assert_eq!(only.front.https_backend, "127.0.0.1:8443".parse().ok());

    for (transport, from, backend, key) in [
        ("udp", "10.0.0.0/8", "", "proxy_protocol_from"),
        ("tcp", "10.0.0.0/33", "", "proxy_protocol_from[0]"),
        ("tcp", "10.0.0.0/8", "127.0.0.1:8443", "https_backend"),
        ("tls", "10.0.0.0/8", "127.0.0.1:0", "https_backend"),
        ("tls", "10.0.0.0/8", "site.example:443", "https_backend"),
        ("tls", "10.0.0.0/8", "192.0.2.1:443", "https_backend"),
    ] {
        let errors = with(transport, from, backend).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert_eq!(errors.0[0].key(), format!("listeners[0].{key}"));
    }
}

#[test]
fn a_secret_is_shown_neither_by_an_error_nor_by_debug() {
    let mut raw = raw();
    raw.controller.join_token = Secret("sesame".into());
    raw.controller.join_token_file = "/nowhere".into();
    assert!(!format!("{raw:?}").contains("sesame"));
    let errors = Config::try_from(raw).unwrap_err();
    assert_eq!(errors.0[0].key(), "controller.join_token");
    assert!(!errors.to_string().contains("sesame"));
}

#[test]
fn a_join_token_file_must_be_readable() {
    let keys = refused(|raw| raw.controller.join_token_file = "/nowhere/token".into());
    assert_eq!(keys, ["controller.join_token_file"]);
}
