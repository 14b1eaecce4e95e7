//! Answers the HTTP-01 challenges of a certificate authority (RFC 8555 §8.3) on a plain HTTP listener, and nothing else: whatever
//! is not `GET /.well-known/acme-challenge/<token>` of a challenge that goes on gets 404.
//!
//! It stands open to everybody at port 80: few connections at a time, one request each, little memory and little time. Where there
//! are too many, the oldest gives way, so that nobody keeps an authority out by being slow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use turnfleet_proto::certificate::Certificate;

/// The path of answers, up to the token.
const PATH: &str = "/.well-known/acme-challenge/";
/// Connections at a time.
const CONNECTIONS: usize = 128;
/// For a request and its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request head that is read.
const MAX_HEAD: usize = 8 << 10;
/// The rest after the operating system refused a connection.
const REST: Duration = Duration::from_millis(250);

/// Answers until it is dropped. Connections that give way to others are counted in `evicted`.
pub(crate) async fn serve(
    listener: TcpListener,
    certificate: Arc<Certificate>,
    evicted: Arc<AtomicU64>,
) {
    let mut conversations = JoinSet::new();
    // Some of them have ended.
    let mut latest: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(REST).await;
            continue;
        };
        while conversations.try_join_next().is_some() {}
        if latest.len() == CONNECTIONS
            && let Some(oldest) = latest.pop_front()
            && !oldest.is_finished()
        {
            oldest.abort();
            evicted.fetch_add(1, Ordering::Relaxed);
        }
        let certificate = Arc::clone(&certificate);
        latest.push_back(conversations.spawn(async move {
            // Whoever asks and does not listen gets nothing.
            let _ = timeout(PATIENCE, converse(stream, &certificate)).await;
        }));
    }
}

async fn converse(mut stream: TcpStream, certificate: &Certificate) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|it| it == b"\r\n\r\n") {
        let count = stream.read(&mut part).await?;
        if count == 0 || head.len() + count > MAX_HEAD {
            return Ok(());
        }
        head.extend_from_slice(&part[..count]);
    }
    let answer = token(&head).and_then(|token| certificate.key_authorization(token));
    let (status, kind, body) = match &answer {
        Some(text) => ("200 OK", "application/octet-stream", text.as_str()),
        None => ("404 Not Found", "text/plain", "there is nothing here\n"),
    };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// The token that a request asks for; `None` where it asks for something else.
fn token(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if method != "GET" || !version.starts_with("HTTP/1.") {
        return None;
    }
    let token = target.strip_prefix(PATH)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (!token.is_empty() && token.bytes().all(plain)).then_some(token)
}

#[cfg(test)]
mod tests {
    use turnfleet_proto::fleet::challenge_answer::Answer;
    use turnfleet_proto::fleet::{ChallengeAnswer, HttpAnswer};

    use super::*;

    async fn ask(request: &str) -> String {
        let certificate = Certificate::awaited();
        let answer = Some(Answer::Http(HttpAnswer {
            token: "abc_-1".into(),
            key_authorization: "abc_-1.thumb".into(),
        }));
        certificate.answer(&[ChallengeAnswer { answer }]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, Arc::new(certificate), Arc::default()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        task.abort();
        told
    }

    #[tokio::test]
    async fn the_answer_to_a_challenge_is_served_and_nothing_else() {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: turn.example.org\r\n\r\n");
        let answer = ask(&get("/.well-known/acme-challenge/abc_-1")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nabc_-1.thumb"), "{answer}");
        for other in [
            get("/.well-known/acme-challenge/other"),
            get("/.well-known/acme-challenge/"),
            get("/.well-known/acme-challenge/../abc_-1"),
            get("/metrics"),
            get("/").replace("GET", "POST"),
        ] {
            let answer = ask(&other).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{other} {answer}");
        }
    }

    #[tokio::test]
    async fn the_oldest_gives_way_where_there_are_too_many() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let evicted = Arc::new(AtomicU64::new(0));
        let certificate = Arc::new(Certificate::awaited());
        let task = tokio::spawn(serve(listener, certificate, Arc::clone(&evicted)));
        let mut silent = Vec::new();
        for _ in 0..=CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut told = Vec::new();
        let closed = silent[0].read_to_end(&mut told);
        // Before its time is over.
        timeout(PATIENCE / 5 * 4, closed).await.unwrap().unwrap();
        assert!(told.is_empty());
        assert_eq!(evicted.load(Ordering::Relaxed), 1);
        task.abort();
    }

    #[tokio::test]
    async fn a_head_without_an_end_gets_nothing() {
        let endless = "GET / HTTP/1.1\r\nX: ".to_owned() + &"x".repeat(MAX_HEAD);
        assert_eq!(ask(&endless).await, "");
    }
}
