//! The example of three regions, really applied by the provider of AWS, found unchanged by a second plan, and destroyed, against moto,
//! which answers as AWS does.
//!
//! The names are made beside the rest: the provider waits for half a minute for each change of Route 53.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::tools;
use crate::workshop::{PYTHON, Workshop, script, succeed};

/// The example's regions, with the aliases of their providers.
const PROVIDERS: [&str; 3] = ["", "us", "ap"];
/// A machine image that moto knows.
const IMAGE: &str = "ami-12c6146b";
const DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A free port below those that the kernel gives to who connects: who tries such a one again and again meets itself there.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(13_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 14_000, "no free port is left");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// moto on a free port; it ends when the value is dropped.
struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    fn start() -> Self {
        let port = free_port();
        let child = Command::new(PYTHON)
            .arg(script("moto_server.py"))
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        let address = format!("127.0.0.1:{port}");
        tools::eventually("moto answers", Duration::from_secs(60), || {
            std::net::TcpStream::connect(&address).ok()
        });
        moto
    }

    /// Makes a hosted zone; its id.
    fn zone(&self) -> String {
        let script = format!(
            "import boto3\nclient = boto3.client('route53', endpoint_url='{}', region_name='us-east-1', \
             aws_access_key_id='t', aws_secret_access_key='t')\n\
             print(client.create_hosted_zone(Name='example.org', CallerReference='1')['HostedZone']['Id'].split('/')[-1])",
            self.url
        );
        let printed = succeed(Command::new(PYTHON).args(["-c", &script]));
        printed.trim().to_owned()
    }

    /// An override that sends the providers called `aliases` here.
    fn providers(&self, aliases: &[&str]) -> String {
        let services = ["autoscaling", "ec2", "iam", "route53", "sts"];
        let endpoints: String = services
            .map(|service| format!("    {service} = \"{}\"\n", self.url))
            .concat();
        let provider = |alias: &&str| {
            let alias = match *alias {
                "" => "region = \"eu-central-1\"".to_owned(),
                alias => format!("alias = \"{alias}\""),
            };
            format!(
                "provider \"aws\" {{\n  {alias}\n  access_key = \"t\"\n  secret_key = \"t\"\n  skip_credentials_validation = true\n  \
                 skip_metadata_api_check = true\n  skip_requesting_account_id = true\n  endpoints {{\n{endpoints}  }}\n}}\n"
            )
        };
        aliases.iter().map(provider).collect()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Applies the folder `below`, plans again, and destroys; the outputs.
#[track_caller]
fn apply_and_destroy(workshop: &Workshop, below: &str) -> serde_json::Value {
    workshop.terraform(below, &["init"]);
    workshop.terraform(below, &["apply", "-auto-approve", "-parallelism=40"]);
    let outputs = workshop.outputs(below);
    let again = workshop.try_terraform(below, &["plan", "-detailed-exitcode", "-parallelism=40"]);
    assert_eq!(
        again.status.code(),
        Some(0),
        "the second plan of {below} changes something:\n{}",
        String::from_utf8_lossy(&again.stdout)
    );
    // The plan has just asked for everything.
    let destroy = [
        "destroy",
        "-auto-approve",
        "-parallelism=40",
        "-refresh=false",
    ];
    let gone = workshop.terraform(below, &destroy);
    assert!(gone.contains("Destroy complete!"), "{gone}");
    outputs
}

/// Both at once: each waits for the provider most of its time.
#[test]
fn the_example_and_its_names_are_applied_unchanged_by_a_second_plan_and_destroyed() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    std::thread::scope(|scope| {
        scope.spawn(|| assert_names(&workshop));
        assert_example(&workshop);
    });
}

#[track_caller]
fn assert_example(workshop: &Workshop) {
    let moto = Moto::start();
    let folder = "examples/multi-region";
    let file = |name: &str| workshop.path(folder).join(name);
    fs::write(file("providers_override.tf"), moto.providers(&PROVIDERS)).unwrap();

    // The module of the names with its inputs and outputs alone; the other test has the resources.
    fs::create_dir(file("names")).unwrap();
    for part in ["variables.tf", "outputs.tf"] {
        fs::copy(
            workshop.path("modules/aws-dns").join(part),
            file("names").join(part),
        )
        .unwrap();
    }
    fs::write(
        file("names_override.tf"),
        "module \"dns\" {\n  source = \"./names\"\n}\n",
    )
    .unwrap();

    let arn =
        |what: &str| format!("\"arn:aws:secretsmanager:eu-central-1:123456789012:secret:{what}\"");
    let values = format!(
        "domain = \"example.org\"\nzone_id = \"Z1\"\n\
         binary = {{ url = \"https://dl.example.org/turnfleet\", sha256 = \"{DIGEST}\" }}\n\
         secret_arns = {{ controllers = {}, eu = {relays}, us = {relays}, ap = {relays} }}\n\
         amis = {{ eu = \"{IMAGE}\", us = \"{IMAGE}\", ap = \"{IMAGE}\" }}\n\
         api_cidrs = [\"198.51.100.0/24\"]\nmetrics_cidrs = [\"198.51.100.0/24\"]\n",
        arn("controllers"),
        relays = arn("relays"),
    );
    fs::write(file("terraform.tfvars"), values).unwrap();

    let outputs = apply_and_destroy(workshop, folder);
    let uris = outputs["turn_uris"].as_array().unwrap();
    assert!(
        uris.contains(&"turns:turn.example.org:443?transport=tcp".into()),
        "{outputs}"
    );
    assert_eq!(
        outputs["dashboard_address"],
        "https://controller.example.org:8080/"
    );
    let address = outputs["controller_address"].as_str().unwrap();
    assert!(
        address.starts_with("https://c0.controller.example.org:8080,"),
        "{address}"
    );
}

#[track_caller]
fn assert_names(workshop: &Workshop) {
    let moto = Moto::start();
    fs::create_dir(workshop.path("names")).unwrap();
    let main = format!(
        r#"terraform {{
  required_providers {{
    aws = {{ source = "hashicorp/aws" }}
  }}
}}
{}
module "dns" {{
  source  = "../modules/aws-dns"
  zone_id = "{}"
  domain  = "example.org"
  regions = {{
    eu = {{ aws_region = "eu-central-1", ipv4 = {{ "turnfleet-eu-0" = "203.0.113.8", "turnfleet-eu-1" = "203.0.113.9" }} }}
    us = {{ aws_region = "us-east-1", ipv4 = {{ "turnfleet-us-0" = "198.51.100.8" }} }}
  }}
  controllers = {{ domain = "controller.example.org", names = {{ "c0.controller.example.org" = "203.0.113.20" }} }}
}}
output "turn_uris" {{
  value = module.dns.turn_uris
}}
"#,
        moto.providers(&[""]),
        moto.zone(),
    );
    fs::write(workshop.path("names/main.tf"), main).unwrap();
    let outputs = apply_and_destroy(workshop, "names");
    assert_eq!(
        outputs["turn_uris"][0],
        "turn:turn.example.org:3478?transport=udp"
    );
}
