//! `docs/protocol.md` names a file and a test for what the RFCs ask of servers, and both are there.
//!
//! The core's statement tests (`relay/turn/tests/server/rfc*.rs`) are a table of the page that is made from them: the
//! comment above a test names the section, and its name is the statement. `UPDATE_EXPECT=1 cargo test --test protocol`
//! writes that table; the rest of the page is written by hand, and read here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Between these lines stands what is made from the tests.
const MADE: [&str; 2] = ["<!-- made from the tests -->", "<!-- end -->"];

/// The folder of the statement tests.
const STATEMENTS: &str = "relay/turn/tests/server";

/// Which file keeps the statements of a section: the longest beginning that fits counts.
const KEPT_IN: [(&str, &str); 41] = [
    ("RFC 8489 §5", "wire/message.rs"),
    ("RFC 8489 §6.3", "server/mod.rs"),
    ("RFC 8489 §6.3.1", "server/request.rs"),
    ("RFC 8489 §6.3.1.1", "server/binding.rs"),
    ("RFC 8489 §7", "server/request.rs"),
    ("RFC 8489 §9", "server/auth.rs"),
    ("RFC 8489 §9.2", "server/nonce.rs"),
    ("RFC 8489 §9.2.2", "wire/password.rs"),
    ("RFC 8489 §9.2.4", "server/auth.rs"),
    ("RFC 8489 §10", "server/redirecting.rs"),
    ("RFC 8489 §12", "server/binding.rs"),
    ("RFC 8489 §18", "wire/password.rs"),
    ("RFC 8489 §14", "wire/attribute.rs"),
    ("RFC 8489 §14.3", "wire/typed.rs"),
    ("RFC 8489 §14.5", "wire/integrity.rs"),
    ("RFC 8489 §14.6", "wire/integrity.rs"),
    ("RFC 8489 §14.7", "wire/integrity.rs"),
    ("RFC 8489 §14.8", "wire/error_code.rs"),
    ("RFC 8489 §14.9", "wire/typed.rs"),
    ("RFC 8489 §14.1", "wire/address.rs"),
    ("RFC 8489 §14.11", "wire/password.rs"),
    ("RFC 8489 §14.12", "wire/password.rs"),
    ("RFC 8489 §14.13", "wire/writer.rs"),
    ("RFC 8489 §16", "server/refusing.rs"),
    ("RFC 8489 §18.5", "wire/password.rs"),
    ("RFC 5766 §11", "channels.rs"),
    ("RFC 8656 §3", "server/ending.rs"),
    ("RFC 8656 §5", "server/request.rs"),
    ("RFC 8656 §6", "allocation.rs"),
    ("RFC 8656 §7", "server/allocate.rs"),
    ("RFC 8656 §8", "server/refresh.rs"),
    ("RFC 8656 §9", "permissions.rs"),
    ("RFC 8656 §10", "server/permission.rs"),
    ("RFC 8656 §11", "server/relaying.rs"),
    ("RFC 8656 §12", "server/relaying.rs"),
    ("RFC 8656 §12.2", "server/channel.rs"),
    ("RFC 8656 §18", "wire/typed.rs"),
    ("RFC 8656 §21", "peer_filter.rs"),
    ("RFC 6062", "server/tcp.rs"),
    ("RFC 8489", "server"),
    ("RFC 8656", "server"),
];

/// What test names cannot write, as the RFCs write it.
const WORDS: [(&str, &str); 42] = [
    ("udp", "UDP"),
    ("tcp", "TCP"),
    ("tls", "TLS"),
    ("stun", "STUN"),
    ("nat", "NAT"),
    ("ipv4", "IPv4"),
    ("ipv6", "IPv6"),
    ("teredo", "Teredo"),
    ("sha1", "SHA-1"),
    ("sha256", "SHA-256"),
    ("md5", "MD5"),
    ("rfc", "RFC"),
    ("elses", "else's"),
    ("five tuple", "five-tuple"),
    ("five tuples", "five-tuples"),
    ("allocate", "Allocate"),
    ("a refresh", "a Refresh"),
    ("retransmitted refresh", "retransmitted Refresh"),
    ("and refresh", "and Refresh"),
    ("binding request", "Binding request"),
    ("binding response", "Binding response"),
    ("binding indication", "Binding indication"),
    ("create permission", "CreatePermission"),
    ("channel bind", "ChannelBind"),
    ("channel data", "ChannelData"),
    ("send indication", "Send indication"),
    ("data indication", "Data indication"),
    ("dont fragment", "DONT-FRAGMENT"),
    ("password algorithm", "PASSWORD-ALGORITHM"),
    ("password algorithms", "PASSWORD-ALGORITHMS"),
    ("message integrity", "MESSAGE-INTEGRITY"),
    ("the servers and", "the server's and"),
    ("requested transport", "REQUESTED-TRANSPORT"),
    ("requested address family", "REQUESTED-ADDRESS-FAMILY"),
    ("of channel number", "of CHANNEL-NUMBER"),
    ("even port are", "EVEN-PORT are"),
    ("peers datagram", "peer's datagram"),
    ("peers family", "peer's family"),
    ("the clients family", "the client's family"),
    ("the clients transport", "the client's transport"),
    ("other servers certificate", "other server's certificate"),
    ("the users own", "the user's own"),
];

/// A statement test.
struct Statement {
    /// As the comment above it has it: `RFC 8656 §7.2 (3)`, perhaps with more sections behind it.
    section: String,
    name: String,
    file: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> PathBuf {
    root().join("docs/protocol.md")
}

/// The statement tests, in the order of the sections.
fn statements() -> Vec<Statement> {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join(STATEMENTS))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.starts_with("rfc") {
            let path = format!("{STATEMENTS}/{name}");
            all.extend(statements_of(&path, &fs::read_to_string(&file).unwrap()));
        }
    }
    all.sort_by_key(|statement| order(&statement.section));
    all
}

/// The tests of one file, each with the comment above it.
#[track_caller]
fn statements_of(path: &str, text: &str) -> Vec<Statement> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(3).filter(|lines| lines[1] == "#[test]");
    let statement = |lines: &[&str]| {
        let test = lines[2].strip_prefix("fn ").unwrap();
        let name = test.split('(').next().unwrap().to_owned();
        let comment = lines[0].trim_start_matches('/').trim();
        let sections = comment.split([',', ':']).map(str::trim);
        let sections: Vec<&str> = sections
            .take_while(|part| part.starts_with("RFC ") || part.starts_with('§'))
            .collect();
        let section = sections.join(", ");
        assert!(
            section.starts_with("RFC "),
            "{path}: {name}: no section above it"
        );
        Statement {
            section,
            name,
            file: path.to_owned(),
        }
    };
    tests.map(statement).collect()
}

/// `RFC 8656 §7.2 (3), §9` as the numbers of its first section, for sorting.
fn order(section: &str) -> Vec<u32> {
    let first = section.split(',').next().unwrap();
    first
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// The file that keeps the statements of a section.
#[track_caller]
fn kept_in(section: &str) -> &'static str {
    let first = section.split([',', '(']).next().unwrap().trim();
    let fits = |beginning: &str| {
        first
            .strip_prefix(beginning)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ' ']))
    };
    let fitting = KEPT_IN.iter().filter(|(beginning, _)| fits(beginning));
    let longest = fitting.max_by_key(|(beginning, _)| beginning.len());
    longest.unwrap_or_else(|| panic!("{section}: no file")).1
}

/// A test's name as a sentence.
fn sentence(name: &str) -> String {
    let mut sentence = format!(" {} ", name.replace('_', " "));
    for (plain, written) in WORDS {
        sentence = sentence.replace(&format!(" {plain} "), &format!(" {written} "));
    }
    let (first, rest) = sentence.trim().split_at(1);
    format!("{}{rest}", first.to_uppercase())
}

/// The table that is made from the tests, with a heading for each RFC.
fn made() -> String {
    let mut table = String::new();
    let mut document = "";
    let all = statements();
    for Statement {
        section,
        name,
        file,
    } in &all
    {
        let (of, _) = section.split_once(" §").unwrap();
        if of != document {
            document = of;
            table.push_str(&format!("\n### {of}\n\n"));
            table.push_str("| Section | Statement | File | Test |\n|---|---|---|---|\n");
        }
        let place = section.strip_prefix(of).unwrap().trim();
        let kept = kept_in(section);
        let said = sentence(name);
        let test = file.rsplit('/').next().unwrap();
        table.push_str(&format!(
            "| {place} | {said} | `{kept}` | `{test}::{name}` |\n"
        ));
    }
    table
}

#[test]
fn no_statement_test_is_missing_from_the_page() {
    let text = fs::read_to_string(page()).unwrap();
    let (before, rest) = text.split_once(MADE[0]).unwrap();
    let (_, after) = rest.split_once(MADE[1]).unwrap();
    let wanted = format!("{before}{}\n{}\n{}{after}", MADE[0], made(), MADE[1]);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(page(), &wanted).unwrap();
    }
    assert!(
        fs::read_to_string(page()).unwrap() == wanted,
        "docs/protocol.md is out of date; UPDATE_EXPECT=1 cargo test --test protocol writes it"
    );
}

#[test]
fn the_files_that_keep_statements_exist() {
    for (section, file) in KEPT_IN {
        let path = root().join("relay/turn/src").join(file);
        assert!(path.exists(), "{section}: {}", path.display());
    }
}

/// Whatever the page names in the form `path/to/file.rs` or `path/to/file.rs::test` is there.
#[test]
fn files_and_tests_that_are_named_by_hand_exist() {
    let text = fs::read_to_string(page()).unwrap();
    let (before, rest) = text.split_once(MADE[0]).unwrap();
    let (_, after) = rest.split_once(MADE[1]).unwrap();
    let by_hand = [before, after].concat();
    let quoted = by_hand.split('`').skip(1).step_by(2);
    let mut seen = 0;
    for name in quoted.filter(|name| name.contains(".rs")) {
        let (file, test) = name.split_once("::").unwrap_or((name, ""));
        let path = root().join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name}: no such file"));
        let function = format!("fn {test}(");
        assert!(
            test.is_empty() || text.contains(&function),
            "{name}: no such test"
        );
        seen += 1;
    }
    assert!(seen > 0, "the page names no file");
}
