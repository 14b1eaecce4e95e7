//! From the bans of a snapshot to what the core finds by search.

use turnfleet_proto::fleet;
use turnfleet_proto::fleet::ban::Whom;
use turnfleet_turn::TenantId;
use turnfleet_turn::bans::{Ban, BanTarget, Bans};
use turnfleet_turn::peer_filter::Cidr;

use super::{SnapshotError, bounded};

/// Bans that hold at once.
const MAX_BANS: usize = 10_000;
/// RFC 8489 §14.3: no username is longer.
const MAX_USER_BYTES: usize = 508;

/// # Errors
/// When there are too many, or one says of nobody sound whom it is for.
pub(super) fn bans(list: &[fleet::Ban]) -> Result<Bans, SnapshotError> {
    bounded("bans", list, MAX_BANS)?;
    let mut bans = Vec::with_capacity(list.len());
    for ban in list {
        // A later version may ban what this one does not know.
        let Some(whom) = &ban.whom else { continue };
        bans.push(Ban {
            target: target(whom)?,
            until: Some(ban.until).filter(|until| *until > 0),
        });
    }
    Ok(Bans::new(bans))
}

fn target(whom: &Whom) -> Result<BanTarget, SnapshotError> {
    Ok(match whom {
        Whom::User(fleet::BannedUser { tenant, user }) => {
            if user.is_empty() || user.len() > MAX_USER_BYTES {
                return Err(SnapshotError::text("bans.user", user, "1 to 508 bytes"));
            }
            BanTarget::User {
                tenant: TenantId(*tenant),
                user: user.as_str().into(),
            }
        }
        Whom::Tenant(tenant) => BanTarget::Tenant(TenantId(*tenant)),
        Whom::Source(block) => BanTarget::Source(network("bans.source", block)?),
        Whom::Peer(block) => BanTarget::Peer(network("bans.peer", block)?),
    })
}

fn network(field: &'static str, text: &str) -> Result<Cidr, SnapshotError> {
    text.parse()
        .map_err(|error| SnapshotError::text(field, text, error))
}
