//! Who the node is: its name, which outlives its processes, the incarnation, which is one process, and the credential that
//! the controller gave it.

use std::fmt;
use std::io;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use turnfleet_proto::NodeId;

use super::state_dir::StateDir;

/// The node's name, the credential, and the membership in hexadecimal, with a space between them.
const CREDENTIAL: &str = "node.credential";

/// What the controller gave this node at its enrolment; every session carries it. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NodeCredential {
    text: String,
    /// SHA-256 of the first credential of the membership, which those that follow it keep.
    membership: [u8; 32],
}

impl NodeCredential {
    /// Takes what came over the wire or from disk; `None` for what no metadata value could carry.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let fits = (1..=512).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        let membership = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
        fits.then(|| Self {
            text: text.to_owned(),
            membership,
        })
    }

    /// The credential that follows this one in the same membership.
    pub(crate) fn followed_by(&self, text: &str) -> Option<Self> {
        Some(Self {
            membership: self.membership,
            ..Self::new(text)?
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Tells this membership from another one, and nothing of the credential.
    pub(crate) fn membership(&self) -> [u8; 32] {
        self.membership
    }

    /// As it is kept.
    fn line(&self) -> String {
        let hex = self.membership.iter().map(|byte| format!("{byte:02x}"));
        format!("{} {}", self.text, hex.collect::<String>())
    }

    /// What [`Self::line`] gave.
    fn from_line(line: &str) -> Option<Self> {
        let Some((text, hex)) = line.split_once(' ') else {
            return Self::new(line);
        };
        let byte = |place: usize| u8::from_str_radix(hex.get(place..place + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
        Some(Self {
            membership: bytes?.try_into().ok()?,
            ..Self::new(text)?
        })
    }
}

impl fmt::Debug for NodeCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCredential(..)")
    }
}

/// Name and incarnation, and the credential where the node is a member of a fleet.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) node_id: NodeId,
    pub(crate) incarnation: [u8; 16],
    pub(crate) credential: Option<NodeCredential>,
}

impl Identity {
    /// Draws an incarnation and reads the credential of an earlier one.
    pub(crate) fn load(node_id: NodeId, dir: &StateDir) -> io::Result<Self> {
        let mut incarnation = [0; 16];
        SystemRandom::new()
            .fill(&mut incarnation)
            .map_err(|_| io::Error::other("the system has no random bytes"))?;
        let credential = dir.read(CREDENTIAL)?.and_then(|bytes| {
            let text = std::str::from_utf8(&bytes).ok()?;
            let (name, credential) = text.trim().split_once(' ')?;
            // A renamed node is another member.
            (name == node_id.as_str()).then(|| NodeCredential::from_line(credential))?
        });
        Ok(Self {
            node_id,
            incarnation,
            credential,
        })
    }

    /// Keeps a credential for this process and the next ones.
    pub(crate) fn keep(&mut self, credential: NodeCredential, dir: &StateDir) -> io::Result<()> {
        let contents = format!("{} {}\n", self.node_id, credential.line());
        let kept = dir.write(CREDENTIAL, contents.as_bytes());
        self.credential = Some(credential);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_belongs_to_one_name() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path()).unwrap();
        let load = |name: &str| Identity::load(name.parse().unwrap(), &dir).unwrap();
        let mut identity = load("a");
        assert_eq!(identity.credential, None);
        let credential = NodeCredential::new("secret").unwrap();
        identity.keep(credential.clone(), &dir).unwrap();
        let again = load("a");
        assert_eq!(again.credential.as_ref(), Some(&credential));
        assert_ne!(again.incarnation, identity.incarnation);
        assert_eq!(load("b").credential, None);
        let next = credential.followed_by("another").unwrap();
        assert_eq!(next.membership(), credential.membership());
        identity.keep(next.clone(), &dir).unwrap();
        assert_eq!(load("a").credential, Some(next));
    }
}
