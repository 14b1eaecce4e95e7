//! What the store must hold before the controller serves: what the configuration says, and what is made where it says
//! nothing.

use std::collections::BTreeSet;

use base64::Engine as _;
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_turn::Now;

use super::record::{
    ApiToken, JoinToken, Policy, Record, RecordKey, Scope, Setting, StaticUser, Terms, TokenHash,
    token_hash,
};
use super::{Fleet, Plan};

/// What the tokens that the controller makes are called.
const OWN_TOKEN: &str = "turnfleet";

/// What the configuration wants of the store.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// What every relay enforces.
    pub policy: Policy,
    /// Exactly these users are accepted.
    pub users: Vec<StaticUser>,
    /// The shared secret, where the operator gives one.
    pub shared_secret: Option<SharedSecret>,
    /// The join token, where the operator gives one.
    pub join_token: Option<String>,
    /// API tokens beside the one that the controller makes.
    pub api_tokens: Vec<(TokenHash, ApiToken)>,
    /// Tenants, each with what holds for it. One that is left out later stays, as an operator's.
    pub tenants: Vec<(String, Terms)>,
}

/// Texts and keys that may be needed, each made of at least 255 random bits.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// A shared secret.
    pub shared_secret: SharedSecret,
    /// The controller's own API token.
    pub api_token: String,
    /// A join token.
    pub join_token: String,
    /// A key of nonces.
    pub nonce_key: [u8; 32],
}

impl Fleet {
    /// Brings the store in line with the configuration; what is there and still wanted stays as it is.
    #[must_use]
    pub fn plan_start(&self, wishes: &Wishes, fresh: Fresh, now: Now) -> Plan {
        let kept = |setting, fresh| self.kept.get(&setting).cloned().unwrap_or(fresh);
        let api_token = kept(Setting::ApiToken, fresh.api_token);
        let join_token = kept(Setting::JoinToken, fresh.join_token);
        let accepted = wishes.join_token.as_deref().unwrap_or(&join_token);
        let own = ApiToken {
            name: OWN_TOKEN.to_owned(),
            scopes: vec![Scope::Admin],
            tenant: None,
            expires_at: None,
            by_operator: false,
        };
        let configured = JoinToken {
            name: OWN_TOKEN.to_owned(),
            ..JoinToken::default()
        };
        let mut wanted = vec![
            Record::Policy(wishes.policy.clone()),
            Record::JoinToken(token_hash(accepted), configured),
            Record::ApiToken(token_hash(&api_token), own),
            Record::Setting(Setting::JoinToken, join_token),
            Record::Setting(Setting::ApiToken, api_token),
        ];
        let given = wishes.shared_secret.as_ref();
        let named = given.map(secret_hash);
        wanted.extend(named.map(|hash| Record::Setting(Setting::ConfiguredSecret, hash)));
        wanted.extend(wishes.users.iter().cloned().map(Record::User));
        let tokens = wishes.api_tokens.iter().cloned();
        wanted.extend(tokens.map(|(hash, token)| Record::ApiToken(hash, token)));

        let keys: BTreeSet<_> = wanted.iter().map(Record::key).collect();
        let stale = |key: &&RecordKey| self.is_configured(key) && !keys.contains(key);
        let mut deletes: BTreeSet<_> = self.revisions.keys().filter(stale).cloned().collect();
        // Before the policy, which says that a rollout has begun: the plan may be written in parts.
        let rollout = self.begin_rollout(&wishes.policy).map(Record::Rollout);
        let missing = wanted.into_iter().filter(|record| !self.holds(record));
        let mut puts: Vec<_> = rollout.into_iter().chain(missing).collect();
        puts.extend(self.configured_tenants(&wishes.tenants, now.unix));
        // A secret that the configuration has named before may have been rotated since.
        let given = given.filter(|secret| {
            self.kept.get(&Setting::ConfiguredSecret) != Some(&secret_hash(secret))
        });
        let at = self.moment(now.unix);
        let secret = self.secrets.adopt(at, given, || fresh.shared_secret);
        let upkeep = self.nonce_key_upkeep(now, at.generation, fresh.nonce_key);
        for changes in [secret, upkeep] {
            puts.extend(changes.puts);
            deletes.extend(changes.deletes);
        }
        self.plan(puts, deletes.into_iter().collect())
    }

    /// Whether the store holds exactly this, of the kinds that the configuration decides.
    fn holds(&self, record: &Record) -> bool {
        match record {
            Record::Policy(policy) => self.policy.as_ref() == Some(policy),
            Record::User(user) => self.users.get(&user.name_hash()) == Some(user),
            Record::ApiToken(hash, token) => self.api_tokens.get(hash) == Some(token),
            Record::JoinToken(hash, token) => self.join_tokens.get(hash) == Some(token),
            Record::Setting(setting, value) => self.kept.get(setting) == Some(value),
            Record::Epoch(_)
            | Record::Leader(_)
            | Record::Controller(_)
            | Record::Generation(_)
            | Record::Rollout(_)
            | Record::Node(_)
            | Record::Desired(..)
            | Record::Grant(_)
            | Record::Secret(_)
            | Record::NonceKey(_)
            | Record::LastTenant(_)
            | Record::Tenant(_)
            | Record::Ban(_) => false,
        }
    }

    /// Whether the record is there exactly where the configuration asks for it.
    fn is_configured(&self, key: &RecordKey) -> bool {
        match key {
            RecordKey::User(_) => true,
            RecordKey::JoinToken(hash) => {
                let token = self.join_tokens.get(hash);
                token.is_some_and(|token| !token.by_operator)
            }
            RecordKey::ApiToken(hash) => {
                let token = self.api_tokens.get(hash);
                token.is_some_and(|token| !token.by_operator)
            }
            RecordKey::Epoch
            | RecordKey::Leader
            | RecordKey::Controller(_)
            | RecordKey::Generation
            | RecordKey::Policy
            | RecordKey::Rollout
            | RecordKey::Node(_)
            | RecordKey::Desired(_)
            | RecordKey::Grant(..)
            | RecordKey::Secret(..)
            | RecordKey::NonceKey(_)
            | RecordKey::Setting(_)
            | RecordKey::LastTenant
            | RecordKey::Tenant(_)
            | RecordKey::Ban(_) => false,
        }
    }
}

/// What tells one configured secret from another.
fn secret_hash(secret: &SharedSecret) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(secret.as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash)
}
