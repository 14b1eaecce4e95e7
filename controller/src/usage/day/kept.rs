//! What of the day is in the store, in two values that fit into it whatever there is: the largest come first.

use prost::Message as _;
use turnfleet_proto::store as wire;

use crate::store::{Entry, MAX_VALUE, Put};

/// Where it is.
pub const KEYS: &str = "/tf/usage/v1/day/";
const TENANTS: &str = "/tf/usage/v1/day/tenants";
const USERS: &str = "/tf/usage/v1/day/users";
const MAX_TENANTS: usize = 4096;
const MAX_USERS: usize = 1000;
/// Bytes of the rows of one value; the rest is room for what is around them.
const MAX_BYTES: usize = MAX_VALUE - 1024;

/// What a restart goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptDay {
    /// Days since 1970.
    pub day: u64,
    /// Tenants, those with the most bytes of the day first, with what they had carried when it began.
    pub tenants: Vec<(u32, u64)>,
    /// Users, those with the most bytes of the day first, with these.
    pub users: Vec<(u32, Box<str>, u64)>,
}

impl KeptDay {
    /// The entries, without those that are beyond the bounds.
    #[must_use]
    pub fn puts(&self) -> Vec<Put> {
        let tenants = self.tenants.iter().map(|&(tenant, begun_at)| {
            let row = wire::UsageDayTenant { tenant, begun_at };
            (row.encoded_len(), row)
        });
        let users = self.users.iter().map(|(tenant, user, bytes)| {
            let row = wire::UsageDayUser {
                tenant: *tenant,
                user: user.to_string(),
                bytes: *bytes,
            };
            (row.encoded_len(), row)
        });
        let day = wire::UsageDayRecord {
            day: self.day,
            ..wire::UsageDayRecord::default()
        };
        let tenants = wire::UsageDayRecord {
            tenants: bounded(tenants.take(MAX_TENANTS)),
            ..day.clone()
        };
        let users = wire::UsageDayRecord {
            users: bounded(users.take(MAX_USERS)),
            ..day
        };
        let put = |key: &str, record: &wire::UsageDayRecord| Put {
            key: key.to_owned(),
            value: record.encode_to_vec(),
            lease: None,
        };
        vec![put(TENANTS, &tenants), put(USERS, &users)]
    }

    /// What `entries` hold of the latest day; `None` where nothing of it can be read.
    #[must_use]
    pub fn read(entries: &[Entry]) -> Option<Self> {
        let read = |entry: &Entry| wire::UsageDayRecord::decode(entry.value.as_slice()).ok();
        let records: Vec<_> = entries.iter().filter_map(read).collect();
        let day = records.iter().map(|record| record.day).max()?;
        let mut kept = Self {
            day,
            ..Self::default()
        };
        for record in records.into_iter().filter(|record| record.day == day) {
            let tenants = record.tenants.iter();
            kept.tenants
                .extend(tenants.map(|row| (row.tenant, row.begun_at)));
            let users = record.users.into_iter();
            kept.users
                .extend(users.map(|row| (row.tenant, row.user.into(), row.bytes)));
        }
        Some(kept)
    }
}

/// The first rows that fit into a value; each comes with its length.
fn bounded<R>(rows: impl Iterator<Item = (usize, R)>) -> Vec<R> {
    let mut bytes = 0;
    let fitting = rows.take_while(|(len, _)| {
        // With its tag and the number of its bytes.
        bytes += len + 4;
        bytes <= MAX_BYTES
    });
    fitting.map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_fits_whatever_there_is_and_is_read_as_it_was() {
        let mut day = KeptDay {
            day: 20_000,
            tenants: (0..10_000).map(|id| (u32::MAX - id, u64::MAX)).collect(),
            users: (0..5_000)
                .map(|id| (1, format!("{id:0520}").into(), u64::MAX))
                .collect(),
        };
        let puts = day.puts();
        assert!(puts.iter().all(|put| put.value.len() <= MAX_VALUE));
        let entry = |put: &Put| Entry {
            key: put.key.clone(),
            value: put.value.clone(),
            mod_revision: 1,
        };
        let entries: Vec<_> = puts.iter().map(entry).collect();
        let read = KeptDay::read(&entries).unwrap();
        assert!(read.tenants.len() > 2000 && read.users.len() > 100);
        day.tenants.truncate(read.tenants.len());
        day.users.truncate(read.users.len());
        assert_eq!(read, day);
        assert_eq!(KeptDay::read(&[]), None);
    }
}
