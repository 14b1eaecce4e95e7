//! Plans that move ports between nodes: who gets which by registering, by what it reports, by an operator's word, and by
//! time.

use std::collections::BTreeMap;
use std::net::IpAddr;

use turnfleet_proto::{NodeId, PortRange};

use super::capacity::granted_ports;
use super::health::Health;
use super::node::Registration;
use super::port_grants::{Changes, PortReport, Sharing};
use super::record::{PortGrant, Record, RecordKey};
use super::{Fleet, FleetView, Plan};
use crate::error::FleetError;

impl Fleet {
    /// Whether every address of a node that registers has ports.
    ///
    /// # Errors
    /// When one has none, whether others are about to give some up or not.
    pub fn require_ports(&self, registration: &Registration) -> Result<(), FleetError> {
        let node = &registration.id;
        let is_away = |_: &NodeId| false;
        let sharing = self.sharing(0, &is_away);
        for ip in &registration.identity.public_ips {
            if !sharing.has_ports(node, *ip) {
                return Err(self.no_ports(&sharing, node, *ip));
            }
        }
        Ok(())
    }

    /// What a connected node's report changes in its ports, and what time does.
    #[must_use]
    pub fn plan_ports(&self, node: &NodeId, unix: u64) -> Plan {
        let Some(state) = self.nodes.get(node) else {
            return Plan::default();
        };
        let (Some(report), Some(identity)) = (&state.port_report, state.identity()) else {
            return Plan::default();
        };
        let is_away = |node: &NodeId| self.is_away(node);
        let sharing = self.sharing(unix, &is_away);
        let changes = sharing.look_after(node, &identity.public_ips, report);
        let (puts, deletes) = self.records(changes);
        self.plan(puts, deletes)
    }

    pub(super) fn ports_reported(&mut self, session: &(NodeId, u64), report: PortReport) {
        if let Some(node) = self.current(session) {
            node.port_report = Some(report);
        }
    }

    /// The connected nodes that have reported on their ports.
    pub fn port_reporters(&self) -> impl Iterator<Item = &NodeId> {
        let reports = self
            .nodes
            .iter()
            .filter(|(_, node)| node.port_report.is_some());
        reports.map(|(id, _)| id)
    }

    /// Takes an operator's word that nobody uses these ports: whoever holds them loses them to a quarantine, and a
    /// quarantine ends at once.
    ///
    /// # Errors
    /// When they are not the ports of one grant, or their holder has a live session.
    pub fn plan_release(
        &self,
        public_ip: IpAddr,
        range: PortRange,
        unix: u64,
    ) -> Result<Plan, FleetError> {
        let unknown = FleetError::UnknownGrant { public_ip, range };
        let found = self.grants.get(&(public_ip, range.first()));
        let Some(grant) = found.filter(|grant| grant.range == range) else {
            return Err(unknown);
        };
        let holder = self.nodes.get(&grant.node);
        if grant.quarantined_until.is_none()
            && holder.is_some_and(|node| node.liveness.is_connected())
        {
            return Err(FleetError::Live(grant.node.clone()));
        }
        let is_away = |_: &NodeId| false;
        let changes = self.sharing(unix, &is_away).release(public_ip, range);
        let (puts, deletes) = self.records(changes.ok_or(unknown)?);
        Ok(self.plan(puts, deletes))
    }

    /// What registering changes in grants; an error where nothing would give an address of the node ports.
    pub(super) fn registered_ports(
        &self,
        registration: &Registration,
        may_move: bool,
        unix: u64,
    ) -> Result<(Changes, bool), FleetError> {
        let node = &registration.id;
        let ips = &registration.identity.public_ips;
        let is_away = |node: &NodeId| self.is_away(node);
        let sharing = self.sharing(unix, &is_away);
        let changes = sharing.register(node, ips, may_move);
        let gets = |ip: IpAddr| {
            let gives = |grant: &PortGrant| {
                grant.node == *node && grant.public_ip == ip && grant.open_range().is_some()
            };
            sharing.has_ports(node, ip) || changes.grants.iter().any(gives)
        };
        let Some(without) = ips.iter().copied().find(|ip| !gets(*ip)) else {
            return Ok((changes, true));
        };
        if changes.is_empty() {
            return Err(self.no_ports(&sharing, node, without));
        }
        Ok((changes, false))
    }

    /// The puts and deletes by which the ports of a node that is gone for good become others'.
    pub(super) fn forgotten_ports(
        &self,
        node: &NodeId,
        unix: u64,
    ) -> (Vec<Record>, Vec<RecordKey>) {
        let is_away = |_: &NodeId| false;
        self.records(self.sharing(unix, &is_away).forget(node))
    }

    /// The puts and deletes of quarantines that are over.
    pub(super) fn ended_quarantines(&self, unix: u64) -> (Vec<Record>, Vec<RecordKey>) {
        let is_away = |_: &NodeId| false;
        self.records(self.sharing(unix, &is_away).ended_quarantines())
    }

    /// The puts and deletes, written after `generation`, by which nodes hold what they report: all of them, or as many as one
    /// transaction takes.
    pub(super) fn reported_ports(
        &self,
        generation: u64,
        unix: u64,
    ) -> (Vec<Record>, Vec<RecordKey>) {
        let connected = (self.nodes.iter()).filter(|(_, node)| node.liveness.is_connected());
        let reports = connected.filter_map(|(id, node)| {
            let report = node.port_report.as_ref();
            let report = report.or_else(|| node.elsewhere.port_report());
            Some((id, report?))
        });
        let is_away = |_: &NodeId| false;
        let sharing = Sharing {
            generation,
            ..self.sharing(unix, &is_away)
        };
        written_after(
            generation,
            sharing.as_reported(&reports.collect::<Vec<_>>()),
        )
    }

    /// What has to be written for `changes`.
    pub(super) fn records(&self, changes: Changes) -> (Vec<Record>, Vec<RecordKey>) {
        written_after(self.generation, changes)
    }

    fn sharing<'a>(&'a self, unix: u64, is_away: &'a dyn Fn(&NodeId) -> bool) -> Sharing<'a> {
        Sharing {
            grants: &self.grants,
            plan: self.settings.ports,
            generation: self.generation,
            unix,
            is_away,
        }
    }

    fn is_away(&self, node: &NodeId) -> bool {
        self.nodes
            .get(node)
            .is_none_or(|node| node.liveness.health() == Health::Gone)
    }

    fn no_ports(&self, sharing: &Sharing<'_>, node: &NodeId, public_ip: IpAddr) -> FleetError {
        let holders = sharing.holders(node, public_ip);
        match sharing.owed(node, public_ip) {
            0 => FleetError::PortsExhausted {
                node: node.clone(),
                public_ip,
                relay_ports: self.settings.ports.range,
                relays_per_address: self.settings.ports.relays_per_address,
                holders,
            },
            owed => FleetError::PortsAwaited {
                node: node.clone(),
                public_ip,
                holders,
                owed,
            },
        }
    }
}

fn written_after(generation: u64, changes: Changes) -> (Vec<Record>, Vec<RecordKey>) {
    let fence = generation + 1;
    let grants = changes.grants.into_iter();
    let puts = grants.map(|grant| Record::Grant(PortGrant { fence, ..grant }));
    let deletes = changes.releases.iter().map(PortGrant::key);
    (puts.collect(), deletes.collect())
}

/// The ports of one region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionPorts {
    /// Ports that its nodes may open.
    pub granted: u64,
    /// Those in use.
    pub used: u64,
    /// Those that are nobody's until their quarantine ends.
    pub quarantined: u64,
}

impl FleetView {
    /// Ports by region; those of a forgotten node count for the region without a name.
    #[must_use]
    pub fn ports_by_region(&self) -> BTreeMap<&str, RegionPorts> {
        let mut regions: BTreeMap<&str, RegionPorts> = BTreeMap::new();
        for node in &self.nodes {
            let region = regions.entry(&node.identity.region).or_default();
            region.granted += granted_ports(&node.grants);
            if node.health != Health::Gone {
                region.used += node.load.relayed_ports_used;
            }
        }
        for grant in &self.quarantined {
            let node = self.node(&grant.node);
            let region = node.map_or("", |node| &node.identity.region);
            regions.entry(region).or_default().quarantined += u64::from(grant.range.len());
        }
        regions
    }
}
