//! The back end on etcd (3.4 and later), for a fleet with several controllers.
//!
//! Every call is tried at one member after the other, each for a short time. A transaction whose answer was lost is
//! recognised by what it wrote before it is sent again; with compares on what it writes it happens at most once. Keys and
//! values are bounded as in every back end, and a transaction by what etcd takes without configuration.

mod fault;
mod link;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, ResponseHeader, TxnOp, TxnOpResponse,
    TxnResponse,
};
use tonic::Code;

use super::{
    Compare, Entry, LeaseId, Outcome, Put, Range, Revision, Store, StoreError, Txn, Watch,
    check_bounds,
};
use crate::config::{Opaque, TlsFiles};
use link::{Failed, Link};
use watch::EtcdWatch;

/// What etcd takes in one transaction unless it is told otherwise (`--max-txn-ops`).
const MAX_OPERATIONS: usize = 128;
/// The most bytes of a transaction: below etcd's 1.5 MiB (`--max-request-bytes`).
const MAX_TRANSACTION: usize = 1024 * 1024;
/// The most bytes of one answer: a page of the largest values.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// Entries that are read at once.
const PAGE: i64 = 256;
/// How often a reading begins anew because etcd forgot the revision that it had begun at.
const READINGS: u32 = 3;

/// Where etcd is, and as whom to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// The client URLs of the members.
    pub endpoints: Vec<String>,
    /// The certificate authority of the members, where they speak TLS.
    pub ca: Option<PathBuf>,
    /// What is shown to members that ask for a client certificate.
    pub client: Option<TlsFiles>,
    /// User and password.
    pub login: Option<(String, Opaque)>,
}

/// A store on etcd.
#[derive(Clone)]
pub struct EtcdStore {
    link: Arc<Link>,
    /// The highest revision that etcd has told of.
    known: Arc<AtomicU64>,
}

impl EtcdStore {
    /// Speaks to the cluster of `config`; the first call connects.
    ///
    /// # Errors
    /// When a file cannot be used, or an endpoint is no URL.
    pub fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        Ok(Self {
            link: Arc::new(Link::new(config)?),
            known: Arc::default(),
        })
    }

    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn check(config: &EtcdConfig) -> Result<(), StoreError> {
        link::options(config).map(drop)
    }

    fn learn(&self, header: Option<&ResponseHeader>) -> Revision {
        let revision = revision(header.map_or(0, ResponseHeader::revision));
        self.known.fetch_max(revision, Ordering::Relaxed);
        revision
    }

    async fn page(
        &self,
        from: &str,
        prefix: &str,
        at: Revision,
        limit: i64,
    ) -> Result<GetResponse, Failed> {
        let options = GetOptions::new()
            .with_range(prefix_end(prefix))
            .with_limit(limit)
            .with_revision(i64::try_from(at).unwrap_or(i64::MAX));
        let call = |client: etcd_client::Client| {
            let options = Some(options.clone());
            async move {
                let mut client = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                client.get(from, options).await
            }
        };
        self.link.call(call).await
    }

    async fn pages(&self, prefix: &str) -> Result<Range, Failed> {
        let mut from = prefix.to_owned();
        let mut range = Range {
            revision: 0,
            entries: Vec::new(),
        };
        loop {
            let mut page = self.page(&from, prefix, range.revision, PAGE).await?;
            let revision = self.learn(page.header());
            if range.revision == 0 {
                range.revision = revision;
            }
            range.entries.extend(page.take_kvs().into_iter().map(entry));
            match range.entries.last() {
                Some(last) if page.more() => from = format!("{}\0", last.key),
                Some(_) | None => return Ok(range),
            }
        }
    }

    async fn txn(&self, request: &etcd_client::Txn) -> Result<TxnResponse, Failed> {
        let call = |client: etcd_client::Client| {
            let request = request.clone();
            async move {
                let mut client = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                client.txn(request).await
            }
        };
        self.link.try_once(call).await
    }

    /// Whether `txn` was written after revision `known`, and when: all that it puts is there, by one revision, and all
    /// that it deletes is not.
    async fn find_written(&self, txn: &Txn, known: Revision) -> Result<Option<Revision>, Failed> {
        let puts = txn.puts.iter().map(|put| &put.key);
        let reads: Vec<_> = puts.chain(deletes(txn)).map(|key| read(key)).collect();
        let response = self.txn(&etcd_client::Txn::new().and_then(reads)).await?;
        let now = self.learn(response.header());
        let mut found = found(&response);
        let mut written = None;
        for put in &txn.puts {
            let Some(entry) = found.remove(&put.key) else {
                return Ok(None);
            };
            let by = revision(entry.mod_revision());
            let same =
                entry.value() == put.value && entry.lease() == put.lease.map_or(0, |id| id.0);
            if !same || by <= known || *written.get_or_insert(by) != by {
                return Ok(None);
            }
        }
        Ok(found.is_empty().then(|| written.unwrap_or(now)))
    }

    fn outcome(&self, txn: &Txn, response: &TxnResponse) -> Outcome {
        let revision = self.learn(response.header());
        if response.succeeded() {
            return Outcome::Committed { revision };
        }
        let found = found(response);
        let mut seen = Vec::new();
        for compare in &txn.compares {
            let entry = found.get(&compare.key).cloned().map(entry);
            if entry.as_ref().map_or(0, |entry| entry.mod_revision) != compare.mod_revision {
                seen.push((compare.key.clone(), entry));
            }
        }
        Outcome::Conflict { revision, seen }
    }

    /// One try of a transaction, of which an earlier try may have been written all the same.
    async fn attempt(
        &self,
        txn: &Txn,
        request: &etcd_client::Txn,
        earlier: Option<Revision>,
    ) -> Result<Outcome, Failed> {
        if let Some(known) = earlier
            && let Some(revision) = self.find_written(txn, known).await?
        {
            return Ok(Outcome::Committed { revision });
        }
        let outcome = self.outcome(txn, &self.txn(request).await?);
        if let Some(known) = earlier
            && matches!(outcome, Outcome::Conflict { .. })
            && let Some(revision) = self.find_written(txn, known).await?
        {
            return Ok(Outcome::Committed { revision });
        }
        Ok(outcome)
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        let mut readings = READINGS;
        loop {
            match self.pages(prefix).await {
                Ok(range) => return Ok(range),
                Err(failed) if is_compacted(&failed) && readings > 1 => readings -= 1,
                Err(failed) => return Err(failed.into_store_error("reading the store")),
            }
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        check_bounds(&txn, MAX_OPERATIONS)?;
        let bytes: usize = txn.puts.iter().map(|put| put.value.len()).sum();
        if bytes > MAX_TRANSACTION {
            let (what, limit) = ("the size of a transaction", MAX_TRANSACTION);
            return Err(StoreError::TooLarge { what, limit });
        }
        let known = self.known.load(Ordering::Relaxed);
        let request = request(&txn);
        let mut tries = self.link.tries();
        let mut earlier = None;
        loop {
            let failed = match self.attempt(&txn, &request, earlier).await {
                Ok(outcome) => return Ok(outcome),
                Err(failed) if failed.is_without_lease() => return Err(StoreError::LeaseEnded),
                Err(failed) => failed,
            };
            if failed.is_passing() {
                earlier = Some(known);
            }
            let again = self.link.after(failed, &mut tries).await;
            again.map_err(|failed| failed.into_store_error("writing the store"))?;
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let from = from.max(1);
        // etcd tells a watch of forgotten history late; a reading at that revision tells at once.
        let page = self.page(prefix, prefix, from, 1).await;
        match page {
            Ok(_) => {}
            Err(failed) if is_compacted(&failed) => {
                return Err(StoreError::Compacted {
                    asked: from,
                    oldest: from + 1,
                });
            }
            // Nothing has been written since.
            Err(failed) if failed.code() == Some(Code::OutOfRange) => {}
            Err(failed) => return Err(failed.into_store_error("watching the store")),
        }
        let watch = EtcdWatch::start(Arc::clone(&self.link), prefix, from);
        Ok(Box::new(watch))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = ttl.as_millis().div_ceil(1000).max(1);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let call = |client: etcd_client::Client| async move {
            client.lease_client().grant(seconds, None).await
        };
        let granted = self.link.call(call).await;
        let granted = granted.map_err(|failed| failed.into_store_error("granting a lease"))?;
        Ok(LeaseId(granted.id()))
    }

    async fn keep_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        let call = |client: etcd_client::Client| async move {
            client.lease_client().keep_alive(lease.0).await.map(drop)
        };
        match self.link.call(call).await {
            Ok(()) => Ok(true),
            Err(failed) if failed.is_without_lease() => Ok(false),
            Err(failed) => Err(failed.into_store_error("keeping a lease")),
        }
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let call = |client: etcd_client::Client| async move {
            client.lease_client().revoke(lease.0).await.map(drop)
        };
        match self.link.call(call).await {
            Err(failed) if !failed.is_without_lease() => {
                Err(failed.into_store_error("ending a lease"))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn max_operations(&self) -> usize {
        MAX_OPERATIONS
    }
}

/// The transaction in etcd's terms; where a compare fails, what stands there is read.
fn request(txn: &Txn) -> etcd_client::Txn {
    let compare = |compare: &Compare| {
        let revision = i64::try_from(compare.mod_revision).unwrap_or(i64::MAX);
        etcd_client::Compare::mod_revision(compare.key.as_str(), CompareOp::Equal, revision)
    };
    let put = |put: &Put| {
        let options = put.lease.map(|lease| PutOptions::new().with_lease(lease.0));
        TxnOp::put(put.key.as_str(), put.value.as_slice(), options)
    };
    let puts = txn.puts.iter().map(put);
    let deletes = deletes(txn).map(|key| TxnOp::delete(key.as_str(), None));
    let compared = txn.compares.iter().map(|compare| read(&compare.key));
    etcd_client::Txn::new()
        .when(txn.compares.iter().map(compare).collect::<Vec<_>>())
        .and_then(puts.chain(deletes).collect::<Vec<_>>())
        .or_else(compared.collect::<Vec<_>>())
}

/// The deletes but those of keys that are put: etcd takes each key once.
fn deletes(txn: &Txn) -> impl Iterator<Item = &String> {
    let put = |key: &String| txn.puts.iter().any(|put| put.key == *key);
    txn.deletes.iter().filter(move |key| !put(key))
}

fn read(key: &str) -> TxnOp {
    TxnOp::get(key, None)
}

/// What the readings of a transaction found.
fn found(response: &TxnResponse) -> BTreeMap<String, KeyValue> {
    let mut entries = BTreeMap::new();
    for response in response.op_responses() {
        if let TxnOpResponse::Get(mut got) = response {
            let found = got.take_kvs().into_iter();
            entries.extend(found.map(|entry| (text(entry.key()), entry)));
        }
    }
    entries
}

fn entry(found: KeyValue) -> Entry {
    let mod_revision = revision(found.mod_revision());
    let (key, value) = found.into_key_value();
    Entry {
        key: text(&key),
        value,
        mod_revision,
    }
}

/// The end of the keys that begin with `prefix`: the first key beyond them.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Without an end: everything from the prefix on.
    vec![0]
}

/// Keys of this store are text; another's become one that no record has.
fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn revision(signed: i64) -> Revision {
    Revision::try_from(signed).unwrap_or(0)
}

fn is_compacted(failed: &Failed) -> bool {
    failed.says(Code::OutOfRange, "compacted")
}
