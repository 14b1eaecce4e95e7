//! What a kubelet makes of rendered pods, as far as processes on this machine need it: volumes become folders, references become
//! environment variables, and paths of the container lead into the pod's folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;

/// Folders of a container that pods of the chart mount something in.
const MOUNTED: [&str; 3] = ["/etc/turnfleet", "/var/lib/turnfleet", "/var/lib/etcd"];
/// The name by which relays and controllers know the controllers.
const CONTROLLERS: &str = "fleet-turnfleet-controllers.calls.svc";

/// The objects of a release, and the Secrets that an operator has made.
pub(crate) struct Cluster {
    folder: TempDir,
    objects: Vec<Value>,
    secret: BTreeMap<&'static str, String>,
    /// Texts that stand for others on this machine: names and ports of the cluster's network.
    pub(crate) instead: Vec<(String, String)>,
}

/// A pod with its folder.
pub(crate) struct Pod {
    folder: PathBuf,
    container: Value,
    facts: BTreeMap<&'static str, String>,
    instead: Vec<(String, String)>,
}

impl Cluster {
    /// What the value set `case` renders to with `extra` laid over it, by the name of the case.
    #[track_caller]
    pub(crate) fn render(case: &str, extra: &Value) -> Value {
        let mut command = crate::program("chart.py");
        let output = command.arg(case).arg(extra.to_string()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The cluster that holds `objects`.
    pub(crate) fn of(objects: &Value) -> Self {
        let mut secret: BTreeMap<_, _> = [
            ("shared-secret", "a shared secret of some length"),
            ("join-token", "a join token of some length"),
            ("api-token", "an API token of some length"),
            ("metrics-token", "a metrics token of some length"),
            ("password", "a password"),
            ("store-key", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
        ]
        .into_iter()
        .map(|(key, text)| (key, text.to_owned()))
        .collect();
        secret.extend(certificates());
        Self {
            folder: tempfile::tempdir().unwrap(),
            objects: objects.as_array().unwrap().clone(),
            secret,
            instead: Vec::new(),
        }
    }

    /// The text that every Secret has under `key`.
    pub(crate) fn secret(&self, key: &str) -> &str {
        &self.secret[key]
    }

    /// One pod of each object that makes pods.
    pub(crate) fn pods(&self) -> Vec<Pod> {
        let makes_pods = |it: &&Value| it["spec"]["template"].is_object();
        let makers = self.objects.iter().filter(makes_pods);
        makers
            .map(|it| {
                let name = it["metadata"]["name"].as_str().unwrap();
                // The cluster's family shows in the listeners.
                let is_v6 = it.to_string().contains("[$(POD_IP)]");
                self.pod(
                    name,
                    name,
                    "node-1",
                    if is_v6 { "::1" } else { "127.0.0.1" },
                )
            })
            .collect()
    }

    /// A pod of the object `of`, called `name`, at `ip` on `node`, with empty state.
    #[track_caller]
    pub(crate) fn pod(&self, of: &str, name: &str, node: &str, ip: &str) -> Pod {
        let is_it = |it: &&Value| {
            let makes_pods = it["kind"] == "Pod" || it["spec"]["template"].is_object();
            it["metadata"]["name"] == of && makes_pods
        };
        let object = self.objects.iter().find(is_it);
        let object = object.unwrap_or_else(|| panic!("no {of} makes pods"));
        let spec = match object["kind"].as_str() {
            Some("Pod") => &object["spec"],
            _ => &object["spec"]["template"]["spec"],
        };
        let pod = Pod {
            folder: self.folder.path().join(name),
            container: spec["containers"][0].clone(),
            facts: BTreeMap::from([
                ("status.podIP", ip.to_owned()),
                ("metadata.name", name.to_owned()),
                ("spec.nodeName", node.to_owned()),
            ]),
            instead: self.instead.clone(),
        };
        for mount in pod.container["volumeMounts"].as_array().unwrap() {
            let path = pod.path(mount["mountPath"].as_str().unwrap());
            fs::create_dir_all(&path).unwrap();
            let volumes = spec["volumes"].as_array().into_iter().flatten();
            let volume = volumes.into_iter().find(|it| it["name"] == mount["name"]);
            if let Some(volume) = volume {
                self.fill(volume, &path, &pod);
            }
        }
        pod
    }

    /// Puts into `path` what `volume` holds.
    fn fill(&self, volume: &Value, path: &Path, pod: &Pod) {
        let mut files: Vec<(&str, String)> = Vec::new();
        if let Some(name) = volume["configMap"]["name"].as_str() {
            let is_it = |it: &&Value| it["kind"] == "ConfigMap" && it["metadata"]["name"] == name;
            let map = self.objects.iter().find(is_it).unwrap();
            let data = map["data"].as_object().unwrap().iter();
            files.extend(data.map(|(key, text)| (&**key, pod.here(text.as_str().unwrap()))));
        }
        let sources = volume["projected"]["sources"].as_array();
        let sources = sources
            .into_iter()
            .flatten()
            .map(|source| &source["secret"]);
        for secret in sources
            .chain([&volume["secret"]])
            .filter(|it| it.is_object())
        {
            match secret["items"].as_array() {
                Some(items) => files.extend(items.iter().map(|item| {
                    let text = &self.secret[item["key"].as_str().unwrap()];
                    (item["path"].as_str().unwrap(), text.clone())
                })),
                None => files.extend(
                    ["tls.crt", "tls.key", "ca.crt"].map(|key| (key, self.secret[key].clone())),
                ),
            }
        }
        if !files.is_empty() {
            publish(path, &files);
        }
    }
}

/// Puts `files` into the volume at `path` as a kubelet does: into a folder of their own, to which a link leads that is replaced
/// at once.
fn publish(path: &Path, files: &[(&str, String)]) {
    let is_free = |name: &String| !path.join(name).exists();
    let mut names = (0..).map(|number| format!("..{number}"));
    let folder = names.find(is_free).unwrap();
    fs::create_dir(path.join(&folder)).unwrap();
    for (name, text) in files {
        fs::write(path.join(&folder).join(name), text).unwrap();
        let link = path.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    let draft = path.join("..data_tmp");
    symlink(folder, &draft).unwrap();
    fs::rename(draft, path.join("..data")).unwrap();
}

impl Pod {
    /// Where a path of the container lies.
    fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    /// `text` of the container, for a process on this machine.
    fn here(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for folder in MOUNTED {
            text = text.replace(folder, self.path(folder).to_str().unwrap());
        }
        for (there, here) in &self.instead {
            text = text.replace(there, here);
        }
        text
    }

    /// The environment: each value may name those before it.
    fn environment(&self) -> Vec<(String, String)> {
        let mut known: Vec<(String, String)> = Vec::new();
        for variable in self.container["env"].as_array().into_iter().flatten() {
            let name = variable["name"].as_str().unwrap().to_owned();
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some(path) => self.facts[path].clone(),
                None => self.here(&expand(variable["value"].as_str().unwrap(), &known)),
            };
            known.push((name, value));
        }
        known
    }

    /// The arguments of its container.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let known = self.environment();
        let arguments = self.container["args"].as_array().into_iter().flatten();
        arguments
            .map(|it| self.here(&expand(it.as_str().unwrap(), &known)))
            .collect()
    }

    /// `command` with the environment of the container and nothing else.
    pub(crate) fn dress(&self, mut command: Command) -> Command {
        command.env_clear().envs(self.environment());
        command
    }

    /// Replaces what the volume at `path` of the container holds.
    pub(crate) fn publish(&self, path: &str, files: &[(&str, String)]) {
        publish(&self.path(path), files);
    }

    /// The text of a file of the container.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Where it may log.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The path that its readiness is asked at.
    pub(crate) fn readiness(&self) -> &str {
        let path = &self.container["readinessProbe"]["httpGet"]["path"];
        path.as_str().unwrap()
    }
}

/// `text` with `$(NAME)` of `known`.
fn expand(text: &str, known: &[(String, String)]) -> String {
    let once =
        |text: String, (name, value): &(String, String)| text.replace(&format!("$({name})"), value);
    known.iter().fold(text.to_owned(), once)
}

/// An authority, and a certificate of it for the controllers' Service; of addresses it says nothing.
pub(crate) fn certificates() -> [(&'static str, String); 3] {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let names = [CONTROLLERS.to_owned(), "localhost".to_owned()];
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    [
        ("tls.crt", leaf.pem()),
        ("tls.key", key.serialize_pem()),
        ("ca.crt", ca),
    ]
}
