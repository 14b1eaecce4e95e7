//! The figures of a run, as a table for a person or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::traffic::Traffic;
use crate::bench::as_float;

/// How the allocations were made.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Allocated {
    pub(super) seconds: f64,
    pub(super) per_second: f64,
}

/// The figures of one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Round {
    /// Packets that the server relayed.
    packets: u64,
    packets_per_second: f64,
    payload_loss: f64,
    payloads_corrupt: u64,
    latency_p50_us: f64,
    latency_p99_us: f64,
    /// Where processes were named.
    packets_per_cpu_second: Option<f64>,
    cpu_ns_per_packet: Option<f64>,
}

impl Round {
    pub(super) fn new(traffic: &Traffic, cpu: Option<Duration>) -> Self {
        let packets = as_float(traffic.packets());
        let micros = |quantile| traffic.latency(quantile).as_secs_f64() * 1e6;
        Self {
            packets: traffic.packets(),
            packets_per_second: packets / traffic.duration.as_secs_f64(),
            payload_loss: traffic.loss(),
            payloads_corrupt: traffic.corrupt,
            latency_p50_us: micros(0.5),
            latency_p99_us: micros(0.99),
            packets_per_cpu_second: cpu.map(|cpu| packets / cpu.as_secs_f64()),
            cpu_ns_per_packet: cpu.map(|cpu| cpu.as_secs_f64() * 1e9 / packets),
        }
    }
}

/// All figures of one server.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    target: String,
    allocations: u32,
    allocations_per_second: f64,
    allocation_seconds: f64,
    memory_bytes_per_allocation: Option<u64>,
    rounds: Vec<Round>,
}

impl Report {
    pub(super) fn new(
        target: String,
        allocations: u32,
        allocated: Allocated,
        memory_bytes_per_allocation: Option<u64>,
    ) -> Self {
        Self {
            target,
            allocations,
            allocations_per_second: allocated.per_second,
            allocation_seconds: allocated.seconds,
            memory_bytes_per_allocation,
            rounds: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Whether some packet was relayed in some round.
    pub(super) fn carried_anything(&self) -> bool {
        self.rounds.iter().any(|round| round.packets > 0)
    }

    /// The median over the rounds of what `figure` takes from them; `None` without a figure.
    fn median(&self, figure: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        let mut figures: Vec<f64> = self.rounds.iter().filter_map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        match figures.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(figures[middle]),
            _ => Some(f64::midpoint(figures[middle - 1], figures[middle])),
        }
    }
}

/// A line of the table: what it shows, with which unit, and where more is better.
struct Figure {
    name: &'static str,
    decimals: usize,
    of: fn(&Report) -> Option<f64>,
}

const FIGURES: [Figure; 9] = [
    Figure {
        name: "allocations/s",
        decimals: 0,
        of: |report| (report.allocations_per_second > 0.0).then_some(report.allocations_per_second),
    },
    Figure {
        name: "memory an allocation, bytes",
        decimals: 0,
        of: |report| report.memory_bytes_per_allocation.map(as_float),
    },
    Figure {
        name: "packets/s",
        decimals: 0,
        of: |report| report.median(|round| Some(round.packets_per_second)),
    },
    Figure {
        name: "packets a CPU-second",
        decimals: 0,
        of: |report| report.median(|round| round.packets_per_cpu_second),
    },
    Figure {
        name: "CPU a packet, ns",
        decimals: 0,
        of: |report| report.median(|round| round.cpu_ns_per_packet),
    },
    Figure {
        name: "payload loss, %",
        decimals: 3,
        of: |report| report.median(|round| Some(round.payload_loss * 100.0)),
    },
    Figure {
        name: "payloads corrupt",
        decimals: 0,
        of: |report| report.median(|round| Some(as_float(round.payloads_corrupt))),
    },
    Figure {
        name: "latency p50, us",
        decimals: 0,
        of: |report| report.median(|round| Some(round.latency_p50_us)),
    },
    Figure {
        name: "latency p99, us",
        decimals: 0,
        of: |report| report.median(|round| Some(round.latency_p99_us)),
    },
];

/// The ratio of the first server's figure to the second's.
fn ratio(figure: &Figure, reports: &[&Report]) -> Option<f64> {
    let [first, second] = reports else {
        return None;
    };
    let (first, second) = ((figure.of)(first)?, (figure.of)(second)?);
    (second != 0.0).then(|| first / second)
}

/// How much the first server's figure is more than the second's.
fn difference(figure: &Figure, reports: &[&Report]) -> Option<f64> {
    let [first, second] = reports else {
        return None;
    };
    Some((figure.of)(first)? - (figure.of)(second)?)
}

/// The table: a line for each figure, a column for each server, and the ratio and the difference of two.
pub(super) fn table(reports: &[&Report]) -> String {
    let mut text = format!("{:<28}", "");
    for report in reports {
        let _ = write!(text, " {:>40}", report.target);
    }
    let heads = if reports.len() == 2 {
        ["ratio", "difference"]
    } else {
        ["", ""]
    };
    let _ = writeln!(text, " {:>8} {:>12}", heads[0], heads[1]);
    for figure in &FIGURES {
        let _ = write!(text, "{:<28}", figure.name);
        for report in reports {
            let shown = (figure.of)(report).map_or_else(
                || "-".to_owned(),
                |value| format!("{value:.*}", figure.decimals),
            );
            let _ = write!(text, " {shown:>40}");
        }
        let shown = ratio(figure, reports).map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let _ = write!(text, " {shown:>8}");
        let shown = difference(figure, reports)
            .map_or_else(String::new, |more| format!("{more:+.*}", figure.decimals));
        let _ = writeln!(text, " {shown:>12}");
    }
    text
}

/// One JSON object: the servers with each round, medians, and ratios and differences of two.
pub(super) fn json(reports: &[&Report]) -> Result<String> {
    let medians = |report: &&Report| -> serde_json::Map<String, serde_json::Value> {
        FIGURES
            .iter()
            .map(|figure| (figure.name.to_owned(), (figure.of)(report).into()))
            .collect()
    };
    let compared = |by: fn(&Figure, &[&Report]) -> Option<f64>| {
        let figures = FIGURES.iter();
        figures
            .filter_map(|figure| Some((figure.name.to_owned(), by(figure, reports)?.into())))
            .collect::<serde_json::Map<String, serde_json::Value>>()
    };
    Ok(serde_json::to_string(&serde_json::json!({
        "servers": reports,
        "medians": reports.iter().map(medians).collect::<Vec<_>>(),
        "ratios": compared(ratio),
        "differences": compared(difference),
    }))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cpu: &[u64]) -> Report {
        let mut report = Report::new(
            "turn:a".to_owned(),
            2,
            Allocated {
                seconds: 1.0,
                per_second: 2.0,
            },
            None,
        );
        for millis in cpu {
            let mut traffic = Traffic::new(1, 0);
            traffic.duration = Duration::from_secs(1);
            traffic.sent = 1000;
            (0..1000).for_each(|_| traffic.arrived(0, 1000));
            report.add(Round::new(&traffic, Some(Duration::from_millis(*millis))));
        }
        report
    }

    #[test]
    fn figures_are_medians_and_ratios_are_of_the_first_to_the_second() {
        let (ours, theirs) = (report(&[1, 100, 2]), report(&[4, 4]));
        let figure = FIGURES
            .iter()
            .find(|figure| figure.name == "packets a CPU-second")
            .unwrap();
        assert_eq!((figure.of)(&ours), Some(500_000.0));
        assert_eq!(ratio(figure, &[&ours, &theirs]), Some(2.0));
        assert_eq!(difference(figure, &[&ours, &theirs]), Some(250_000.0));
        assert!(table(&[&ours, &theirs]).contains("2.00      +250000"));
    }
}
