//! What operators do with the shared secrets, each with the id of the generation that it made or changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use turnfleet_proto::credentials::SharedSecret;

use super::Handle;
use crate::error::FleetError;
use crate::fleet::record::SecretScope;
use crate::fleet::{Fleet, Pin, Plan, Revocation, SecretError};
use crate::store::{SealError, StoreError};

impl Handle {
    /// Begins a rotation of `scope`: credentials are minted with `secret`, or with a random one, as soon as every relay of the
    /// lists accepts it. Gives the id.
    ///
    /// # Errors
    /// When a rotation is not through, the scope holds as much as relays accept, or the store fails.
    pub async fn rotate_secret(
        &self,
        scope: SecretScope,
        secret: Option<SharedSecret>,
    ) -> Result<u32, FleetError> {
        let secret = match secret {
            Some(secret) => secret,
            None => random_secret()?,
        };
        self.change_secret(move |fleet, unix| {
            let (id, plan) = fleet.plan_rotation(unix, &scope, &secret)?;
            Ok((Some(id), plan))
        })
        .await
        .map(Option::unwrap_or_default)
    }

    /// Pins a generation, or a secret that an application has. Gives the id.
    ///
    /// # Errors
    /// When there is no such generation, there are too many, or the store fails.
    pub async fn pin_secret(&self, pin: Pin) -> Result<u32, FleetError> {
        self.change_secret(move |fleet, unix| {
            let (id, plan) = fleet.plan_pin(unix, &pin)?;
            Ok((Some(id), plan))
        })
        .await
        .map(Option::unwrap_or_default)
    }

    /// Lets a pinned generation retire.
    ///
    /// # Errors
    /// When it is not pinned, nothing else is there to mint with, or the store fails.
    pub async fn unpin_secret(&self, id: u32) -> Result<(), FleetError> {
        self.change_secret(move |fleet, unix| Ok((None, fleet.plan_unpin(unix, id)?)))
            .await
            .map(drop)
    }

    /// Has relays refuse a generation from now on: with `cut` they end the allocations that were made with it, and with
    /// `replace` another one takes over minting where this one did it. Gives the id of that.
    ///
    /// # Errors
    /// When there is no such generation, nothing would be left to mint with, or the store fails.
    pub async fn revoke_secret(
        &self,
        id: u32,
        cut: bool,
        replace: bool,
    ) -> Result<Option<u32>, FleetError> {
        let replacement = replace.then(random_secret).transpose()?;
        let revocation = Revocation { cut, replacement };
        self.change_secret(move |fleet, unix| fleet.plan_revocation(unix, id, &revocation))
            .await
    }

    /// Carries a step out; zero stands for no id, which none has.
    async fn change_secret(
        &self,
        step: impl Fn(&Fleet, u64) -> Result<(Option<u32>, Plan), SecretError> + Send + Sync + 'static,
    ) -> Result<Option<u32>, FleetError> {
        let concerned = Arc::new(AtomicU32::new(0));
        let concerns = Arc::clone(&concerned);
        self.change(move |fleet, now| {
            let (id, plan) = step(fleet, now.unix)?;
            concerns.store(id.unwrap_or(0), Ordering::Relaxed);
            Ok(plan)
        })
        .await?;
        let id = concerned.load(Ordering::Relaxed);
        Ok(Some(id).filter(|id| *id > 0))
    }
}

fn random_secret() -> Result<SharedSecret, FleetError> {
    let random = ring::rand::SystemRandom::new();
    super::task::random_text(&random)
        .map(SharedSecret::new)
        .map_err(|_| StoreError::from(SealError::Random).into())
}
