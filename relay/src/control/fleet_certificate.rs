//! The certificate that the controller tells: shown by TLS listeners, and kept in the state folder, so that a restarted node has
//! one while its controller is away.

use std::io;
use std::sync::Arc;

use prost::Message as _;
use turnfleet_proto::certificate::Certificate;
use turnfleet_proto::fleet::Certificates;

use super::state_dir::StateDir;

/// For the owner alone, as the node's credential is.
const FILE: &str = "certificate";

/// What a node does with certificates of the fleet.
pub(crate) struct FleetCertificate;

impl FleetCertificate {
    /// Shows what the last run kept, where there is something.
    pub(crate) fn show_kept(certificate: &Certificate, dir: &StateDir) {
        let kept = dir.read(FILE).and_then(|kept| {
            let decoded = kept.map(|bytes| Certificates::decode(bytes.as_slice()));
            decoded.transpose().map_err(io::Error::other)
        });
        let shown = kept.and_then(|kept| match kept {
            Some(kept) => certificate
                .replace(&kept.chain, &kept.key)
                .map_err(io::Error::other),
            None => Ok(false),
        });
        if let Err(error) = shown {
            tracing::warn!(%error, "the kept certificate is no good: there is none until the controller tells one");
        }
    }

    /// Shows what the controller tells, answers challenges with it, and keeps it.
    pub(crate) async fn take(told: Certificates, certificate: &Certificate, dir: &Arc<StateDir>) {
        if let Err(error) = certificate.answer(&told.answers) {
            tracing::warn!(%error, "an answer to a challenge is no good");
        }
        if told.chain.is_empty() {
            return;
        }
        match certificate.replace(&told.chain, &told.key) {
            // Keeping it may have failed.
            Ok(false) => {}
            Ok(true) => tracing::info!("the fleet's certificate is shown"),
            Err(error) => {
                tracing::warn!(%error, "the fleet's certificate is no good; the one before stays");
                return;
            }
        }
        let kept = Certificates {
            answers: Vec::new(),
            ..told
        };
        let dir = Arc::clone(dir);
        let keep = move || {
            let kept = kept.encode_to_vec();
            match dir.read(FILE) {
                Ok(Some(there)) if there == kept => Ok(()),
                Ok(_) | Err(_) => dir.write(FILE, &kept),
            }
        };
        let written = tokio::task::spawn_blocking(keep).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(%error, "cannot keep the certificate: a restarted node has none until the controller tells it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Certificates {
        let made = rcgen::generate_simple_self_signed(["turn.example.org".to_owned()]).unwrap();
        Certificates {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            answers: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_was_told_last_is_shown_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let dir = Arc::new(StateDir::open(root.path()).unwrap());
        let shown = |certificate: &Certificate| certificate.leaf().map(|leaf| leaf.to_vec());
        let certificate = Certificate::awaited();
        FleetCertificate::show_kept(&certificate, &dir);
        assert_eq!(shown(&certificate), None);

        // What could not be kept the first time is kept when it is told again.
        let good = told();
        std::fs::create_dir(dir.path_of(FILE)).unwrap();
        FleetCertificate::take(good.clone(), &certificate, &dir).await;
        let first = shown(&certificate);
        assert!(first.is_some());
        std::fs::remove_dir(dir.path_of(FILE)).unwrap();
        FleetCertificate::take(good, &certificate, &dir).await;
        // A controller without one leaves it as it is, and so does one that tells nonsense.
        FleetCertificate::take(Certificates::default(), &certificate, &dir).await;
        let nonsense = Certificates {
            key: String::new(),
            ..told()
        };
        FleetCertificate::take(nonsense, &certificate, &dir).await;
        assert_eq!(shown(&certificate), first);

        let again = Certificate::awaited();
        FleetCertificate::show_kept(&again, &dir);
        assert_eq!(shown(&again), first);
        dir.write(FILE, b"damaged").unwrap();
        let damaged = Certificate::awaited();
        FleetCertificate::show_kept(&damaged, &dir);
        assert_eq!(shown(&damaged), None);
    }
}
