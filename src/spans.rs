//! The way of spans to a collector, as OTLP by gRPC: a bounded queue that nobody waits for, and a task that empties it in
//! batches.
//!
//! Only spans whose target is that of `turnfleet_proto::spans` come here; which they are, the relay and the controller
//! say. What is lost on the way is counted there.

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use turnfleet_proto::spans::{FIGURES, TARGET, TOOK};

use crate::telemetry::Way;

/// Spans that wait for the collector.
const QUEUE: usize = 4096;
/// Spans of one request to the collector.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHERING: Duration = Duration::from_secs(1);
/// How long the collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whose spans they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The kind of process.
    pub(crate) service: &'static str,
    /// Which one of its kind.
    pub(crate) instance: &'a str,
}

/// What takes spans, and sends them to the collector at `endpoint`. Nothing is sent before the first span.
///
/// # Errors
/// When nothing can be sent to such an address.
pub(crate) fn layer(endpoint: &str, source: Source<'_>) -> anyhow::Result<Way> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(TIMEOUT)
        .build();
    let mut exporter =
        exporter.with_context(|| format!("cannot send traces to {endpoint} (--otlp-endpoint)"))?;
    let resource = Resource::builder_empty()
        .with_service_name(source.service)
        .with_attributes([
            KeyValue::new("service.namespace", "turnfleet"),
            KeyValue::new("service.instance.id", source.instance.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build();
    exporter.set_resource(&resource);
    let (sender, waiting) = mpsc::channel(QUEUE);
    tokio::spawn(send(exporter, waiting));
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(Queue(sender))
        .build();
    let only_spans = Targets::new().with_target(TARGET, LevelFilter::INFO);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("turnfleet"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false);
    Ok(layer.with_filter(only_spans).boxed())
}

/// The near end of the queue.
#[derive(Debug)]
struct Queue(mpsc::Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        begin_earlier(&mut span);
        if self.0.try_send(span).is_err() {
            FIGURES.count_lost_in_queue();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// A span that was made when all was over says how long it took.
fn begin_earlier(span: &mut SpanData) {
    let mut attributes = span.attributes.iter();
    let took = attributes.find(|attribute| attribute.key.as_str() == TOOK);
    let nanos = match took.map(|attribute| &attribute.value) {
        Some(Value::I64(nanos)) => u64::try_from(*nanos).ok(),
        // What does not fit is told as text.
        Some(_) | None => None,
    };
    let start = nanos.and_then(|nanos| span.end_time.checked_sub(Duration::from_nanos(nanos)));
    span.start_time = start.unwrap_or(span.start_time);
}

/// Sends what waits, until nobody is left who could bring more. A batch that the collector does not take is lost.
async fn send(exporter: SpanExporter, mut waiting: mpsc::Receiver<SpanData>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut was_taken = true;
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let deadline = tokio::time::Instant::now() + GATHERING;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            let more = waiting.recv_many(&mut batch, room);
            match tokio::time::timeout_at(deadline, more).await {
                Ok(more) if more > 0 => {}
                Ok(_) | Err(_) => break,
            }
        }
        let count = batch.len() as u64;
        let sent = exporter.export(std::mem::take(&mut batch)).await;
        match &sent {
            Ok(()) => FIGURES.count_exported(count),
            Err(error) => {
                FIGURES.count_lost_in_export(count);
                // Told once, until a batch is taken again: the metric tells the rest.
                if was_taken {
                    tracing::warn!(%error, "the collector takes no traces");
                }
            }
        }
        was_taken = sent.is_ok();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};

    use super::*;

    fn span(attributes: Vec<KeyValue>) -> SpanData {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "test".into(),
            start_time: now,
            end_time: now,
            attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: Default::default(),
        }
    }

    #[test]
    fn a_span_that_says_how_long_it_took_begins_so_much_earlier() {
        let mut told = span(vec![KeyValue::new(TOOK, 2_000_000_000_i64)]);
        begin_earlier(&mut told);
        let took = told.end_time.duration_since(told.start_time).ok();
        assert_eq!(took, Some(Duration::from_secs(2)));
        let mut silent = span(Vec::new());
        begin_earlier(&mut silent);
        assert_eq!(silent.start_time, silent.end_time);
    }

    #[test]
    fn a_full_queue_loses_the_span_and_counts_it() {
        let (sender, mut waiting) = mpsc::channel(1);
        let queue = Queue(sender);
        let before = FIGURES.outcomes()[1].1;
        queue.on_end(span(Vec::new()));
        queue.on_end(span(Vec::new()));
        assert_eq!(FIGURES.outcomes()[1].1, before + 1);
        assert!(waiting.try_recv().is_ok());
    }
}
