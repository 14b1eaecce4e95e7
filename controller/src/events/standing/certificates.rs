//! What becomes of the fleet's certificate from one view of the fleet to the next.

use std::sync::Arc;

use super::super::bus::About;
use super::super::kinds::What;
use crate::fleet::FleetView;
use crate::fleet::issuance::Issuance;

/// What was last seen of it.
pub(super) struct Certificates {
    issuance: Arc<Issuance>,
}

impl Certificates {
    pub(super) fn of(view: &FleetView) -> Self {
        Self {
            issuance: Arc::clone(&view.issuance),
        }
    }

    /// What has happened since the last view.
    pub(super) fn follow(&mut self, view: &FleetView) -> Vec<(About, What)> {
        let before = std::mem::replace(self, Self::of(view)).issuance;
        let after = &self.issuance;
        if Arc::ptr_eq(&before, after) {
            return Vec::new();
        }
        let mut told = Vec::new();
        if let Some(certificate) = &after.certificate
            && after.certificate != before.certificate
        {
            told.push(What::CertificateIssued {
                names: certificate.names.clone(),
                not_after: certificate.not_after,
                renews_at: certificate.renew_at,
            });
        }
        let attempt = &after.attempt;
        if let Some(failure) = &attempt.failure
            && attempt.failures != before.attempt.failures
        {
            told.push(What::CertificateFailed {
                names: attempt.names.clone(),
                reason: failure.reason.clone(),
                error: failure.error.clone(),
                failures: attempt.failures.into(),
                next_at: attempt.next_at,
            });
        }
        let about = told.into_iter().map(|what| (About::default(), what));
        about.collect()
    }
}
