//! The metadata services of clouds: small HTTP servers on a link-local address that tell a machine about itself.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value as Json;
use ureq::Agent;
use ureq::http::{Method, Request};

use super::{MAX_LEN, addresses};

/// Where all of them are.
pub(super) const USUAL: &str = "http://169.254.169.254";
/// For one answer; they are on the same host.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whose machine this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cloud {
    /// EC2, by version 2 of its service, which asks for a token.
    Aws,
    /// Compute Engine.
    Google,
    /// Azure: the address of the interface, or of the load balancer before it.
    Azure,
}

impl Cloud {
    /// The one that the flag calls so.
    pub(super) fn named(name: &str) -> Option<Self> {
        let all = [Self::Aws, Self::Google, Self::Azure];
        all.into_iter().find(|cloud| cloud.name() == name)
    }

    /// What the flag calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Google => "google",
            Self::Azure => "azure",
        }
    }

    /// The public address of the first interface.
    pub(super) fn ask(self, base: &str) -> Result<Vec<IpAddr>> {
        let service = Service::new(base);
        match self {
            Self::Aws => {
                let lives = ("X-aws-ec2-metadata-token-ttl-seconds", "60");
                let token = service.text(Method::PUT, "/latest/api/token", lives)?;
                let shown = ("X-aws-ec2-metadata-token", token.trim());
                service.addresses("/latest/meta-data/public-ipv4", shown)
            }
            Self::Google => service.addresses(
                "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip",
                ("Metadata-Flavor", "Google"),
            ),
            Self::Azure => {
                let shown = ("Metadata", "true");
                let own = service.addresses(
                    "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress\
                     ?api-version=2021-02-01&format=text",
                    shown,
                );
                // Addresses of the standard kind are told by the balancer's part alone.
                own.or_else(|error| {
                    service
                        .frontend(shown)
                        .with_context(|| format!("{error:#}"))
                })
            }
        }
    }
}

/// One metadata service.
struct Service<'a> {
    base: &'a str,
    agent: Agent,
}

impl<'a> Service<'a> {
    fn new(base: &'a str) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            // What a machine is told of itself comes by no proxy, and from nowhere else.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .build();
        Self {
            base,
            agent: config.new_agent(),
        }
    }

    fn addresses(&self, path: &str, header: (&str, &str)) -> Result<Vec<IpAddr>> {
        let text = self.text(Method::GET, path, header)?;
        addresses(&text).with_context(|| format!("{}{path}", self.base))
    }

    /// The frontend of Azure's load balancer.
    fn frontend(&self, header: (&str, &str)) -> Result<Vec<IpAddr>> {
        let path = "/metadata/loadbalancer?api-version=2020-10-01";
        let text = self.text(Method::GET, path, header)?;
        let whole: Json =
            serde_json::from_str(&text).with_context(|| format!("{path}: no JSON"))?;
        let told = whole.pointer("/loadbalancer/publicIpAddresses/0/frontendIpAddress");
        let Some(told) = told.and_then(Json::as_str) else {
            bail!("{path}: no public address");
        };
        addresses(told)
    }

    /// The body of a good answer.
    fn text(&self, method: Method, path: &str, (name, value): (&str, &str)) -> Result<String> {
        let url = format!("{}{path}", self.base);
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header(name, value)
            .body(String::new())
            .with_context(|| format!("{url} cannot be asked for"))?;
        let answer = self.agent.run(request);
        let mut answer = answer.with_context(|| format!("{url} does not answer"))?;
        let status = answer.status();
        ensure!(
            status.as_u16() != 404,
            "{url} answers 404: the machine has no public address, or is not that cloud's"
        );
        ensure!(status.is_success(), "{url} answers {status}");
        let body = answer.body_mut().with_config().limit(MAX_LEN);
        body.read_to_string()
            .with_context(|| format!("{url}: the answer cannot be read"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    /// Answers one request after the other by `answers`: what begins the request's head, a header that it has, and the answer.
    fn stand_in(
        answers: &'static [(&'static str, &'static str, &'static str)],
    ) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            for (begins, header, answer) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                assert!(first.starts_with(begins), "{first}");
                let head = lines
                    .map(Result::unwrap)
                    .take_while(|line| !line.is_empty());
                let head: Vec<String> = head.map(|line| line.to_lowercase()).collect();
                assert!(head.contains(&header.to_lowercase()), "{head:?}");
                let (status, body) = answer.split_once('|').unwrap();
                let len = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
        });
        (url, thread)
    }

    #[track_caller]
    fn asked(
        cloud: Cloud,
        answers: &'static [(&'static str, &'static str, &'static str)],
    ) -> Result<Vec<IpAddr>, String> {
        let (url, thread) = stand_in(answers);
        let found = cloud.ask(&url);
        thread.join().unwrap();
        found.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn each_cloud_is_asked_in_its_own_words() {
        let wanted: Vec<IpAddr> = vec!["203.0.113.7".parse().unwrap()];
        let aws = asked(
            Cloud::Aws,
            &[
                (
                    "PUT /latest/api/token ",
                    "x-aws-ec2-metadata-token-ttl-seconds: 60",
                    "200 OK|T0ken",
                ),
                (
                    "GET /latest/meta-data/public-ipv4 ",
                    "x-aws-ec2-metadata-token: T0ken",
                    "200 OK|203.0.113.7",
                ),
            ],
        );
        assert_eq!(aws.unwrap(), wanted);
        let google = asked(
            Cloud::Google,
            &[(
                "GET /computeMetadata/v1/instance/",
                "metadata-flavor: google",
                "200 OK|203.0.113.7\n",
            )],
        );
        assert_eq!(google.unwrap(), wanted);
        let azure = asked(
            Cloud::Azure,
            &[
                (
                    "GET /metadata/instance/network/",
                    "metadata: true",
                    "200 OK|",
                ),
                (
                    "GET /metadata/loadbalancer?",
                    "metadata: true",
                    r#"200 OK|{"loadbalancer":{"publicIpAddresses":[{"frontendIpAddress":"203.0.113.7","privateIpAddress":"10.0.0.4"}]}}"#,
                ),
            ],
        );
        assert_eq!(azure.unwrap(), wanted);
    }

    #[test]
    fn what_is_no_address_is_said() {
        let error = asked(
            Cloud::Aws,
            &[
                (
                    "PUT ",
                    "x-aws-ec2-metadata-token-ttl-seconds: 60",
                    "200 OK|T",
                ),
                ("GET ", "x-aws-ec2-metadata-token: T", "404 Not Found|"),
            ],
        )
        .unwrap_err();
        assert!(error.contains("no public address"), "{error}");
        let error = asked(
            Cloud::Google,
            &[("GET ", "metadata-flavor: google", "200 OK|<html>")],
        );
        assert!(error.unwrap_err().contains("no IP address"));
        let error = asked(
            Cloud::Google,
            &[("GET ", "metadata-flavor: google", "500 Oh|no")],
        );
        assert!(error.unwrap_err().contains("answers 500"));
    }
}
