//! The members of an etcd cluster, and calls to them that outlast a member.
//!
//! Every member has a channel of its own: a balanced one would go on choosing a dead member. A call stays with the member
//! that answered last; when that one fails, the next is asked.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use turnfleet_proto::etcd as wire;
use wire::auth_client::AuthClient;

use super::{EtcdConfig, StoreError};

/// How long one member is given for one answer.
pub(super) const TRY: Duration = Duration::from_millis(500);
/// How long a call is tried at all: longer than a cluster takes to elect a leader.
const TOTAL: Duration = Duration::from_secs(3);
/// How long a call is tried while no member takes connections.
const TOTAL_REFUSED: Duration = Duration::from_secs(1);
/// The rest after each member has failed once.
pub(super) const REST: Duration = Duration::from_millis(100);
/// etcd closes connections of clients that ask more often than each 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The members of a cluster.
pub(super) struct Link {
    members: Vec<Member>,
    /// Who answered last.
    preferred: AtomicUsize,
    login: Option<(String, crate::config::Opaque)>,
    /// What the cluster gave for the login.
    token: RwLock<Option<MetadataValue<Ascii>>>,
}

struct Member {
    endpoint: String,
    channel: Channel,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failed {
    endpoint: String,
    pub(super) status: Status,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, status } = self;
        write!(f, "etcd at {endpoint}: {}", status.message())
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.status)
    }
}

impl Failed {
    /// The store's error where nothing more is known.
    pub(super) fn into_store_error(self, doing: &'static str) -> StoreError {
        let retryable = self.is_passing() || self.status.code() == Code::ResourceExhausted;
        StoreError::Backend {
            doing,
            retryable,
            source: Box::new(self),
        }
    }

    /// Whether another member, or the same one later, may answer.
    pub(super) fn is_passing(&self) -> bool {
        match self.status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::Unknown
            | Code::Internal => true,
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => false,
        }
    }

    /// Whether the token of the login is no longer good.
    fn is_logged_out(&self) -> bool {
        let code = self.status.code();
        code == Code::Unauthenticated
            || (code == Code::InvalidArgument && self.status.message().contains("auth: revision"))
    }

    /// Whether nothing was sent: no connection came about.
    fn is_refused(&self) -> bool {
        self.status.code() == Code::Unavailable && std::error::Error::source(&self.status).is_some()
    }
}

/// How long a call goes on, and through whom.
pub(super) struct Tries {
    began: Instant,
    refused_only: bool,
    left: usize,
    logins: u8,
}

impl Link {
    /// Makes the channels; nothing is sent before the first call.
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let tls = tls(config)?;
        let members = config
            .endpoints
            .iter()
            .map(|endpoint| member(endpoint, tls.as_ref()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed("reading the addresses of etcd", error))?;
        Ok(Self {
            members,
            preferred: AtomicUsize::new(0),
            login: config.login.clone(),
            token: RwLock::new(None),
        })
    }

    /// A call's budget.
    pub(super) fn tries(&self) -> Tries {
        Tries {
            began: Instant::now(),
            refused_only: true,
            left: self.members.len(),
            logins: 2,
        }
    }

    /// Calls until a member answers or the time is over.
    pub(super) async fn call<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut tries = self.tries();
        loop {
            match self.try_once(&call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.after(error, &mut tries).await?,
            }
        }
    }

    /// Asks one member once.
    pub(super) async fn try_once<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let place = self.preferred.load(Ordering::Relaxed) % self.members.len();
        let member = &self.members[place];
        let answer = match self.ensure_login(member).await {
            Ok(()) => tokio::time::timeout(TRY, call(member.channel.clone())).await,
            Err(status) => Ok(Err(status)),
        };
        let error = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("no answer in time"),
        };
        let failed = self.failed(place, error);
        if failed.is_passing() {
            self.pass_on(place);
        }
        Err(failed)
    }

    /// Whether a call that failed shall be tried again: after a rest where each member has failed.
    pub(super) async fn after(&self, failed: Failed, tries: &mut Tries) -> Result<(), Failed> {
        if failed.is_logged_out() && self.login.is_some() && tries.logins > 0 {
            tries.logins -= 1;
            self.set_token(None);
            return Ok(());
        }
        tries.refused_only &= failed.is_refused();
        let total = if tries.refused_only {
            TOTAL_REFUSED
        } else {
            TOTAL
        };
        if !failed.is_passing() || tries.began.elapsed() >= total {
            return Err(failed);
        }
        tries.left -= 1;
        if tries.left == 0 {
            tries.left = self.members.len();
            tokio::time::sleep(REST).await;
        }
        Ok(())
    }

    /// The member to stay with for a stream, and its place.
    pub(super) async fn stream_member(&self) -> Result<(usize, Channel), Failed> {
        let place = self.preferred.load(Ordering::Relaxed) % self.members.len();
        let member = &self.members[place];
        match self.ensure_login(member).await {
            Ok(()) => Ok((place, member.channel.clone())),
            Err(status) => {
                self.pass_on(place);
                Err(self.failed(place, status))
            }
        }
    }

    /// Says that the member at `place` failed: the next is asked from here on, and a login is made again.
    pub(super) fn pass_on(&self, place: usize) {
        let next = (place + 1) % self.members.len();
        // Somebody else may have passed on already.
        let _ = self.preferred.compare_exchange(
            place,
            next,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// A failure with the name of its member.
    pub(super) fn failed(&self, place: usize, status: Status) -> Failed {
        Failed {
            endpoint: self.members[place].endpoint.clone(),
            status,
        }
    }

    /// The request with the token of the login.
    pub(super) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &*token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// Forgets the token, so that the next call logs in.
    pub(super) fn log_out(&self) {
        self.set_token(None);
    }

    fn set_token(&self, token: Option<MetadataValue<Ascii>>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    async fn ensure_login(&self, member: &Member) -> Result<(), Status> {
        let Some((name, password)) = &self.login else {
            return Ok(());
        };
        let known = self.token.read().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return Ok(());
        }
        drop(known);
        let request = wire::AuthenticateRequest {
            name: name.clone(),
            password: password.expose().to_owned(),
        };
        let mut client = AuthClient::new(member.channel.clone());
        // The password is checked by a slow hash on purpose.
        let answer = tokio::time::timeout(4 * TRY, client.authenticate(request)).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("no answer to the login"))??;
        let token = answer.into_inner().token.parse();
        let token = token.map_err(|_| Status::data_loss("a token that no header takes"))?;
        self.set_token(Some(token));
        Ok(())
    }
}

fn member(
    endpoint: &str,
    tls: Option<&ClientTlsConfig>,
) -> Result<Member, tonic::transport::Error> {
    let mut transport = Endpoint::from_shared(endpoint.to_owned())?
        .connect_timeout(TRY)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE / 2)
        .keep_alive_while_idle(true);
    if let Some(tls) = tls {
        transport = transport.tls_config(tls.clone())?;
    }
    Ok(Member {
        endpoint: endpoint.to_owned(),
        channel: transport.connect_lazy(),
    })
}

/// What members are checked against, and what is shown to them.
pub(super) fn tls(config: &EtcdConfig) -> Result<Option<ClientTlsConfig>, StoreError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|source| StoreError::File {
            path: path.to_owned(),
            source,
        })
    };
    let Some(ca) = &config.ca else {
        return Ok(None);
    };
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    if let Some(files) = &config.client {
        let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    Ok(Some(tls))
}

fn failed(
    doing: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Backend {
        doing,
        retryable: false,
        source: Box::new(source),
    }
}
