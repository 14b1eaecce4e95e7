use std::net::{IpAddr, SocketAddr};

use super::{AnswerKind, ReflectionBudget, Slot, TagTable};
use crate::random::Random;
use crate::time::Instant;
use crate::wire::TransactionId;

const FLOOD_PER_SECOND: u64 = 20_000;
const SECOND: u64 = 1_000_000_000;
/// When RFC 8489 §6.2.1 sends a request that is not answered, in milliseconds.
const TRANSMISSIONS: [u64; 7] = [0, 500, 1500, 3500, 7500, 15_500, 31_500];

fn victim() -> IpAddr {
    "198.51.100.7".parse().unwrap()
}

fn random_request(random: &mut Random) -> (SocketAddr, TransactionId) {
    let [high, low] = random.bytes();
    (
        SocketAddr::new(victim(), u16::from_be_bytes([high, low])),
        TransactionId(random.bytes()),
    )
}

/// The answers in each of `seconds` seconds to a flood of `next`'s requests.
fn flood(
    budget: &mut ReflectionBudget,
    kind: AnswerKind,
    seconds: u64,
    mut next: impl FnMut() -> (SocketAddr, TransactionId),
) -> Vec<u32> {
    let mut answers = Vec::new();
    for second in 0..seconds {
        let mut count = 0;
        for packet in 0..FLOOD_PER_SECOND {
            let now = Instant(second * SECOND + packet * SECOND / FLOOD_PER_SECOND);
            let (source, id) = next();
            count += u32::from(budget.answer_allowed(now, source, kind, id));
        }
        answers.push(count);
    }
    answers
}

#[track_caller]
fn assert_burst_then_rate(answers: &[u32], burst: u32, rate: u32) {
    let (first, rest) = answers.split_first().unwrap();
    assert!((burst / 2..=burst + rate).contains(first), "{answers:?}");
    assert!(rest.iter().all(|&count| count <= rate + 1), "{answers:?}");
    assert!(
        rest.iter().all(|&count| count >= rate * 7 / 10),
        "{answers:?}"
    );
}

#[test]
fn a_spoofed_victim_gets_a_burst_and_then_a_bounded_rate() {
    for (kind, rate) in [(AnswerKind::Challenge, 100), (AnswerKind::Binding, 300)] {
        let mut random = Random::new([1; 32]);
        let mut budget = ReflectionBudget::new(1, Vec::new(), [2; 32]);
        let answers = flood(&mut budget, kind, 6, || random_request(&mut random));
        assert_burst_then_rate(&answers, 1000, rate);
    }
}

#[test]
fn one_packet_repeated_for_ever_uses_little_of_what_is_kept_for_retransmissions() {
    let mut random = Random::new([1; 32]);
    let packet = random_request(&mut random);
    let mut budget = ReflectionBudget::new(1, Vec::new(), [2; 32]);
    let answers = flood(&mut budget, AnswerKind::Challenge, 6, || packet);
    assert_burst_then_rate(&answers, 1000, 100);
    assert!(answers[2..].iter().all(|&count| count <= 81), "{answers:?}");
}

#[test]
fn a_victim_that_authenticated_lately_gets_ten_times_the_challenges() {
    let mut random = Random::new([1; 32]);
    let mut budget = ReflectionBudget::new(1, Vec::new(), [2; 32]);
    budget.authenticated(Instant(0), SocketAddr::new(victim(), 1));
    let answers = flood(&mut budget, AnswerKind::Challenge, 15, || {
        random_request(&mut random)
    });
    assert!(answers[..14].iter().sum::<u32>() >= 10_000, "{answers:?}");
    assert!(answers[14] <= 1001, "{answers:?}");
}

#[test]
fn shards_divide_the_budget_of_a_relay() {
    let mut random = Random::new([1; 32]);
    let mut shards: Vec<_> = (0..8)
        .map(|shard| ReflectionBudget::new(8, Vec::new(), [shard; 32]))
        .collect();
    let mut answers = vec![0; 5];
    for budget in &mut shards {
        let of_shard = flood(budget, AnswerKind::Challenge, 5, || {
            random_request(&mut random)
        });
        answers
            .iter_mut()
            .zip(of_shard)
            .for_each(|(sum, count)| *sum += count);
    }
    assert!(answers[0] <= 1100, "{answers:?}");
    assert!(
        answers[1..].iter().all(|&count| count <= 108),
        "{answers:?}"
    );
    for shards in 1..=u8::MAX {
        let mut budget = ReflectionBudget::new(shards, Vec::new(), [0; 32]);
        let (source, id) = random_request(&mut random);
        assert!(budget.answer_allowed(Instant(0), source, AnswerKind::Challenge, id));
    }
}

/// 200 clients, ten a second, each on the flooded address; gives how many were answered, and how many by their first
/// retransmission.
fn clients_in_a_flood(seed: u8, constant_packet: bool) -> (usize, usize) {
    let mut random = Random::new([seed; 32]);
    let mut budget = ReflectionBudget::new(1, Vec::new(), [seed + 1; 32]);
    let mut transmissions: Vec<(u64, usize, usize)> = Vec::new();
    let mut clients = Vec::new();
    for client in 0..200 {
        clients.push(random_request(&mut random));
        let start = 2000 + 100 * client as u64 + u64::from(random.below(100));
        for (count, after) in TRANSMISSIONS.iter().enumerate() {
            transmissions.push((start + after, client, count));
        }
    }
    transmissions.sort_unstable();

    let mut answered_by = vec![None; clients.len()];
    let mut pending = transmissions.into_iter().peekable();
    let repeated = random_request(&mut random);
    for packet in 0..24 * FLOOD_PER_SECOND {
        let now = packet * SECOND / FLOOD_PER_SECOND;
        let (source, id) = if constant_packet {
            repeated
        } else {
            random_request(&mut random)
        };
        budget.answer_allowed(Instant(now), source, AnswerKind::Challenge, id);
        while let Some((_, client, count)) = pending.next_if(|(at, ..)| at * 1_000_000 <= now) {
            let (source, id) = clients[client];
            if answered_by[client].is_none()
                && budget.answer_allowed(Instant(now), source, AnswerKind::Challenge, id)
            {
                answered_by[client] = Some(count);
            }
        }
    }
    let answered = answered_by.iter().flatten().count();
    (
        answered,
        answered_by
            .iter()
            .flatten()
            .filter(|&&count| count <= 1)
            .count(),
    )
}

#[test]
fn a_client_on_a_spoofed_address_gets_in_with_its_first_retransmission() {
    for (seed, constant_packet) in [(1, false), (2, true)] {
        let (answered, by_first_retransmission) = clients_in_a_flood(seed, constant_packet);
        assert!(
            answered >= 198,
            "{answered} of 200, constant packet: {constant_packet}"
        );
        assert!(
            by_first_retransmission >= 190,
            "{by_first_retransmission} of 200"
        );
    }
}

#[test]
fn a_success_pays_a_challenge_back() {
    let mut random = Random::new([1; 32]);
    let mut budget = ReflectionBudget::new(1, Vec::new(), [2; 32]);
    for _ in 0..100_000 {
        let (source, id) = random_request(&mut random);
        assert!(budget.answer_allowed(Instant(0), source, AnswerKind::Challenge, id));
        budget.authenticated(Instant(0), source);
    }
}

#[test]
fn loopback_and_trusted_sources_have_no_budget() {
    let mut random = Random::new([1; 32]);
    let trusted = "203.0.113.0/24".parse().unwrap();
    let mut budget = ReflectionBudget::new(1, vec![trusted], [2; 32]);
    for source in [
        "127.0.0.1:9",
        "[::1]:9",
        "203.0.113.9:9",
        "[::ffff:203.0.113.9]:9",
    ] {
        let source = source.parse().unwrap();
        for _ in 0..5000 {
            let id = TransactionId(random.bytes());
            assert!(budget.answer_allowed(Instant(0), source, AnswerKind::Challenge, id));
        }
    }
}

#[test]
fn an_ipv6_network_is_one_source() {
    let mut random = Random::new([1; 32]);
    let mut budget = ReflectionBudget::new(1, Vec::new(), [2; 32]);
    let mut ask = |host: u32, network: &str| {
        let source = format!("[{network}:{host:x}]:9").parse().unwrap();
        let id = TransactionId(random.bytes());
        budget.answer_allowed(Instant(0), source, AnswerKind::Challenge, id)
    };
    let answers = (0..3000).filter(|&host| ask(host, "2001:db8:0:1:")).count();
    assert!((980..=1000).contains(&answers), "{answers}");
    assert!(ask(1, "2001:db8:0:2:"));
}

#[test]
fn a_hundred_thousand_sources_are_answered_once_each_in_the_same_memory() {
    let mut budget = ReflectionBudget::new(1, Vec::new(), [2; 32]);
    let size = |budget: &ReflectionBudget| {
        let rows: usize = budget
            .rows
            .iter()
            .map(|row| size_of::<Slot>() * row.len())
            .sum();
        fn table<V>(table: &TagTable<V>) -> usize {
            size_of_val(&*table.sets)
        }
        rows + table(&budget.proven) + table(&budget.sightings)
    };
    let before = size(&budget);
    let mut random = Random::new([1; 32]);
    for packet in 0..100_000 {
        let now = Instant(packet * SECOND / FLOOD_PER_SECOND);
        let ip = IpAddr::from(random.bytes::<4>().map(|octet| octet | 1));
        let source = SocketAddr::new(ip, 9);
        let id = TransactionId(random.bytes());
        assert!(
            budget.answer_allowed(now, source, AnswerKind::Challenge, id),
            "{packet}"
        );
    }
    assert_eq!(size(&budget), before);
    assert!(before <= 512 * 1024, "{before}");
}
