//! What a collector of traces gets of a fleet, and that a fleet without one does as well.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
use crate::fleet::{Place, Ports, SOON, within};

const SECRET: &str = "north-by-northwest";

/// A span with the resource that it came from.
#[derive(Clone, Debug)]
struct Got {
    service: String,
    instance: String,
    span: Span,
    attributes: BTreeMap<String, String>,
}

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Got>>>);

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| {
        let value = attribute.value.as_ref()?.value.as_ref()?;
        if let Any::StringValue(text) = value {
            return Some(text.clone());
        }
        if let Any::IntValue(number) = value {
            return Some(number.to_string());
        }
        Some(format!("{value:?}"))
    };
    let pairs = attributes.iter();
    let pairs = pairs.filter_map(|pair| Some((pair.key.clone(), text(pair)?)));
    pairs.collect()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        for of_resource in request.into_inner().resource_spans {
            let resource = texts(&of_resource.resource.unwrap_or_default().attributes);
            let named = |key: &str| resource.get(key).cloned().unwrap_or_default();
            for span in of_resource.scope_spans.into_iter().flat_map(|it| it.spans) {
                kept.push(Got {
                    service: named("service.name"),
                    instance: named("service.instance.id"),
                    attributes: texts(&span.attributes),
                    span,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves on loopback as long as the runtime lives.
    fn serve(&self, runtime: &tokio::runtime::Runtime) -> SocketAddr {
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    /// The first span of `service` that is called so, and has `attribute` unless that is empty.
    fn first(&self, service: &str, name: &str, attribute: &str) -> Option<Got> {
        let kept = self.0.lock().unwrap();
        let mut of_name = kept.iter().filter(|got| got.span.name == name);
        let fits = |got: &&Got| {
            let says = attribute.is_empty() || got.attributes.contains_key(attribute);
            got.service == service && says
        };
        of_name.find(fits).cloned()
    }

    #[track_caller]
    fn awaits(&self, service: &str, name: &str, attribute: &str) -> Got {
        let mut found = None;
        within(SOON, &format!("a span {name} of {service}"), || {
            found = self.first(service, name, attribute);
            found.is_some()
        });
        found.unwrap()
    }
}

fn took(span: &Span) -> Duration {
    Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano)
}

#[test]
fn a_collector_gets_requests_credentials_pushes_and_allocations() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let collector = Collector::default();
    let endpoint = format!("http://{}", collector.serve(&runtime));
    let place = Place::new();
    let flags = [
        "--spawn",
        "--relays",
        "1",
        "--shared-secret",
        SECRET,
        "--otlp-endpoint",
        &endpoint,
    ];
    let fleet = place.start(Ports::free(), &flags);
    fleet.api("/turn?service=turn&username=alice");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let credential = Credential::synapse(SECRET, "alice");
    let mut caller = Caller::udp(socket, fleet.relay(0), &credential);
    caller.allocate(AllocateOptions::default()).unwrap();
    caller.end().unwrap();

    let request = collector.awaits("turnfleet-up", "GET /turn", "http.route");
    assert_eq!(request.attributes["http.response.status_code"], "200");
    assert!(request.instance.starts_with("up-"), "{}", request.instance);
    let mint = collector.awaits("turnfleet-up", "mint", "");
    assert_eq!(mint.span.parent_span_id, request.span.span_id);
    assert_eq!(mint.span.trace_id, request.span.trace_id);
    let push = collector.awaits("turnfleet-up", "policy push", "outcome");
    assert_eq!(push.attributes["outcome"], "applied");
    assert_eq!(push.attributes["node"], fleet.text("/relays/0/node"));

    let allocate = collector.awaits("turnfleet-relay", "allocate", "took_nanos");
    assert_eq!(allocate.instance, fleet.text("/relays/0/node"));
    assert_eq!(allocate.attributes["transport"], "udp");
    assert!(took(&allocate.span) > Duration::ZERO);
    let allocation = collector.awaits("turnfleet-relay", "allocation", "reason");
    assert_eq!(allocation.attributes["reason"], "refreshed");
    assert!(took(&allocation.span) > took(&allocate.span));
    // Who the client is stays where it was.
    let all = format!("{:?}", collector.0.lock().unwrap());
    assert!(!all.contains("alice"), "{all}");

    let metrics = fleet.text("/relays/0/metrics").to_owned();
    within(SOON, "the relay has counted what it sent", || {
        let page = ureq::get(&metrics)
            .config()
            .proxy(None)
            .build()
            .call()
            .unwrap()
            .body_mut()
            .read_to_string();
        let page = page.unwrap();
        let line = "turnfleet_relay_spans_total{outcome=\"exported\"} ";
        let count = page.lines().find_map(|it| it.strip_prefix(line));
        count.is_some_and(|count| count != "0")
    });
}

#[test]
fn spans_that_nobody_takes_are_counted_and_hold_nothing_back() {
    let place = Place::new();
    let flags = [
        "--relays",
        "1",
        "--shared-secret",
        SECRET,
        "--otlp-endpoint",
        "http://127.0.0.1:9",
    ];
    let fleet = place.start(Ports::free(), &flags);
    fleet.api("/turn?service=turn&username=alice");
    let http = fleet.text("/http").to_owned();
    within(SOON, "lost spans are counted", || {
        let page = ureq::get(format!("{http}/metrics"))
            .config()
            .proxy(None)
            .build()
            .call()
            .unwrap();
        let page = page.into_body().read_to_string().unwrap();
        let line = "turnfleet_controller_spans_total{outcome=\"refused\"} ";
        let count = page.lines().find_map(|it| it.strip_prefix(line));
        count.is_some_and(|count| count != "0")
    });
    within(SOON, "the log tells of them", || {
        place.said().contains("the collector takes no traces")
    });
}

#[test]
fn an_address_that_is_none_of_a_collector_is_refused() {
    let place = Place::new();
    let mut up = place.up(Ports::free(), &["--otlp-endpoint", "https://collector"]);
    let output = up.output().unwrap();
    assert!(!output.status.success());
    let said = place.said();
    assert!(
        said.contains("--otlp-endpoint https://collector: expected http://host:port"),
        "{said}"
    );
}
