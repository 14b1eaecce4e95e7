//! What is done to a store while no controller runs on it, or beside those that do: backup, restore, and the move of an embedded
//! store to etcd.
//!
//! The store is the one of the controller's configuration, and so is the key file. Nothing is written before all that is to be
//! written was checked.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};
use turnfleet_proto::private_file;

use crate::config::Config;
use crate::fleet::record::Epoch;
use crate::store::archive::{Archive, ArchiveError};
use crate::store::transfer::{self, Content, TransferError};
use crate::store::{
    EmbeddedStore, EtcdStore, SealError, Sealer, Store, StoreError, exists, make_state_dir,
};
use crate::wall_clock::since_epoch;

/// What was read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The store that was read from or written to.
    pub store: String,
    /// When what was written had been read, in Unix seconds.
    pub made_at: u64,
    /// How many entries there are.
    pub entries: usize,
    /// The generation of the relays' policy in it.
    pub generation: u64,
    /// SHA-256 of all keys and values.
    pub hash: [u8; 32],
}

/// How a backup is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Deletes the fleet that is there.
    pub replace: bool,
    /// Relays that know more than the backup follow it without an operator's word.
    pub new_epoch: bool,
}

/// Why a store is not backed up, restored or moved.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The store fails, or is not as it should be.
    #[error("{store} cannot be used")]
    Store {
        /// Where it is.
        store: String,
        /// What happened.
        #[source]
        source: TransferError,
    },
    /// A controller runs on the embedded store.
    #[error(
        "the store in {dir} is in use: stop the controller that runs on it (state_dir); relays go on without it"
    )]
    Running {
        /// The state directory.
        dir: PathBuf,
    },
    /// There is no embedded store.
    #[error("there is no store in {dir} (state_dir)")]
    Missing {
        /// The state directory.
        dir: PathBuf,
    },
    /// The file of a backup cannot be used.
    #[error("the backup {path} cannot be used")]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ArchiveError,
    },
    /// The file of a backup cannot be written.
    #[error("the backup {path} cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The key does not open what is to be written.
    #[error(
        "the key in {key_file} (store.key_file) does not open it: bring the key file of the store that it comes from"
    )]
    Key {
        /// The key file.
        key_file: PathBuf,
        /// What does not open.
        #[source]
        source: StoreError,
    },
    /// A value is damaged.
    #[error("{what} is damaged")]
    Damaged {
        /// What it belongs to.
        what: String,
        /// What is wrong with it.
        #[source]
        source: StoreError,
    },
    /// There is nowhere to move to.
    #[error("`store.etcd` names no cluster to move the store to")]
    NoTarget,
}

/// Writes what the store of `config` holds, as of one revision, to `file`, for its owner alone.
///
/// # Errors
/// When the store holds no fleet, is locked by a controller (the embedded one), or fails, and when the file cannot be written.
pub async fn backup(config: &Config, file: &Path) -> Result<Report, MaintenanceError> {
    let source = Place::of(config);
    let store = source.open_existing().await?;
    let read = transfer::read(&*store).await;
    let (revision, content) = read.map_err(|error| source.failed(error))?;
    let archive = Archive {
        made_at: since_epoch().as_secs(),
        store: source.kind().to_owned(),
        revision,
        content,
    };
    private_file::write(file, &archive.encode()).map_err(|source| MaintenanceError::Write {
        path: file.to_owned(),
        source,
    })?;
    Ok(report(source.name(), archive.made_at, &archive.content))
}

/// Writes the backup in `file` into the store of `config`, as the beginning of another epoch.
///
/// # Errors
/// When the file is no whole backup, the key file does not open it, or the store holds a fleet, is in use or fails.
pub async fn restore(
    config: &Config,
    file: &Path,
    options: RestoreOptions,
) -> Result<Report, MaintenanceError> {
    let unusable = |source| MaintenanceError::Archive {
        path: file.to_owned(),
        source,
    };
    let opened = File::open(file).map_err(|error| unusable(error.into()))?;
    let archive = Archive::read(BufReader::new(opened)).map_err(unusable)?;
    let mut content = archive.content;
    check(config, &content, &format!("the backup {}", file.display()))?;
    content.begin_epoch(epoch(config)?, options.new_epoch);
    let target = Place::of(config);
    let store = target.open_or_make().await?;
    let source = format!("a backup of {} seconds", archive.made_at);
    let written = transfer::write(
        &*store,
        &content,
        &source,
        since_epoch().as_secs(),
        options.replace,
    );
    written.await.map_err(|error| target.failed(error))?;
    Ok(report(target.name(), archive.made_at, &content))
}

/// Moves the embedded store in `from`, or in the state directory of `config`, to the etcd of `config`. The fleet stays the same,
/// epoch and all; the embedded store is closed for good, and kept.
///
/// # Errors
/// When a controller runs on the embedded store, etcd holds a fleet, the key file does not open the secrets, or a store fails.
pub async fn migrate(config: &Config, from: Option<&Path>) -> Result<Report, MaintenanceError> {
    let target = Place::of(config);
    let Place::Etcd(config_etcd) = &target else {
        return Err(MaintenanceError::NoTarget);
    };
    let to = config_etcd.endpoints.join(", ");
    let source = Place::Embedded(from.unwrap_or(&config.state_dir).to_owned());
    let (name, old) = (source.name(), source.open_existing().await?);
    let read = transfer::read(&*old).await;
    let (_, content) = read.map_err(|error| source.failed(error))?;
    check(config, &content, &name)?;
    let store = target.open_or_make().await?;
    // It was moved before, and only the last step is missing.
    let same = |read: &(_, Content)| read.1 == content;
    if !transfer::read(&*store).await.as_ref().is_ok_and(same) {
        let written = transfer::write(&*store, &content, &name, since_epoch().as_secs(), false);
        written.await.map_err(|error| target.failed(error))?;
    }
    let closed = transfer::close(&*old, &to).await;
    closed.map_err(|error| source.failed(error))?;
    Ok(report(target.name(), since_epoch().as_secs(), &content))
}

/// A store by its configuration.
enum Place {
    Embedded(PathBuf),
    Etcd(crate::store::EtcdConfig),
}

impl Place {
    fn of(config: &Config) -> Self {
        match &config.store.etcd {
            Some(etcd) => Self::Etcd(etcd.clone()),
            None => Self::Embedded(config.state_dir.clone()),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
            Self::Etcd(_) => "etcd",
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Embedded(dir) => format!("the store in {}", dir.display()),
            Self::Etcd(etcd) => format!("the store on etcd at {}", etcd.endpoints.join(", ")),
        }
    }

    fn failed(&self, source: impl Into<TransferError>) -> MaintenanceError {
        MaintenanceError::Store {
            store: self.name(),
            source: source.into(),
        }
    }

    async fn open_existing(&self) -> Result<Box<dyn Store>, MaintenanceError> {
        match self {
            Self::Embedded(dir) if !exists(dir) => {
                Err(MaintenanceError::Missing { dir: dir.clone() })
            }
            Self::Embedded(_) | Self::Etcd(_) => self.open_or_make().await,
        }
    }

    async fn open_or_make(&self) -> Result<Box<dyn Store>, MaintenanceError> {
        match self {
            Self::Embedded(dir) => {
                make_state_dir(dir).map_err(|error| self.failed(error))?;
                match EmbeddedStore::open(dir).await {
                    Ok(store) => Ok(Box::new(store)),
                    Err(StoreError::InUse { .. }) => {
                        Err(MaintenanceError::Running { dir: dir.clone() })
                    }
                    Err(error) => Err(self.failed(error)),
                }
            }
            Self::Etcd(etcd) => match EtcdStore::new(etcd) {
                Ok(store) => Ok(Box::new(store)),
                Err(error) => Err(self.failed(error)),
            },
        }
    }
}

/// Whether every record of `content` can be read with the key of `config`.
fn check(config: &Config, content: &Content, what: &str) -> Result<(), MaintenanceError> {
    let key = |source| MaintenanceError::Key {
        key_file: config.store.key_file.clone(),
        source,
    };
    let sealer = Sealer::open(&config.store.key_file, false);
    let sealer = sealer.map_err(|error| key(error.into()))?;
    content.check(&sealer).map_err(|source| {
        if matches!(source, StoreError::Seal(_)) {
            return key(source);
        }
        let what = what.to_owned();
        MaintenanceError::Damaged { what, source }
    })
}

fn epoch(config: &Config) -> Result<Epoch, MaintenanceError> {
    let mut epoch = Epoch::default();
    let filled = SystemRandom::new().fill(&mut epoch);
    filled.map_err(|_| Place::of(config).failed(StoreError::from(SealError::Random)))?;
    Ok(epoch)
}

fn report(store: String, made_at: u64, content: &Content) -> Report {
    Report {
        store,
        made_at,
        entries: content.len(),
        generation: content.generation(),
        hash: content.hash(),
    }
}
