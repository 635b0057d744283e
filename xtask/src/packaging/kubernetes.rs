//! The manifests for Kubernetes: valid by its own schemas, and true of the program and the unit.
//!
//! No cluster is asked. The Prometheus operator's `PodMonitor` has no schema here: what it says is compared
//! with the pods that it is about.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::installed::CAPABILITIES;

use crate::lab::checks::{Check, Group};
use crate::tools;

/// The oldest that has every field (`appArmorProfile`), and the newest that the validator knows.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];
/// Prints a file of YAML as JSON.
const TO_JSON: &str = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";

/// All checks; `program` is the one that is packaged.
pub(super) fn check(program: &Path) -> Result<Group> {
    let folder = tools::repository()?.join("packaging/kubernetes");
    let validator = Validator::new(&folder)?;
    let set_path = folder.join("daemonset.yaml");
    let mut checks = Vec::new();
    for version in VERSIONS {
        let name = format!("valid for Kubernetes {version}");
        checks.push(Check::equal(&name, &true, &validator.accepts(&set_path, version)?));
    }
    let misspelt = validator.folder.join("misspelt.yaml");
    let text = fs::read_to_string(&set_path).context("cannot read daemonset.yaml")?;
    fs::write(&misspelt, text.replace("hostPID:", "hostPid:")).context("cannot write a wrong manifest")?;
    checks.push(Check::equal("a misspelt key is seen", &false, &validator.accepts(&misspelt, VERSIONS[0])?));
    let set = validator.read(&set_path)?;
    checks.extend(check_set(&set));
    checks.extend(check_arguments(&set, program)?);
    checks.extend(check_monitor(&validator.read(&folder.join("podmonitor.yaml"))?, &set));
    Ok(Group { name: "kubernetes".to_owned(), checks })
}

fn check_set(set: &Value) -> Vec<Check> {
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    let capabilities: Vec<&str> = CAPABILITIES.iter().filter_map(|name| name.strip_prefix("CAP_")).collect();
    let path = |probe: &str| container[probe]["httpGet"]["path"].clone();
    vec![
        Check::equal("selector", &labels(set), &set["spec"]["selector"]["matchLabels"]),
        Check::equal("the host's process ids", &true, &pod["hostPID"]),
        Check::equal("nodes with VMs", &"\"true\"", &pod["nodeSelector"]["kubevirt.io/schedulable"]),
        Check::equal(
            "capabilities of the unit",
            &Value::from(capabilities),
            &security["capabilities"]["add"],
        ),
        Check::equal("no other capability", &Value::from(vec!["ALL"]), &security["capabilities"]["drop"]),
        Check::equal("nothing is written", &true, &security["readOnlyRootFilesystem"]),
        Check::equal("image", &concat!("\"mmu-trace:", env!("CARGO_PKG_VERSION"), "\""), &container["image"]),
        Check::equal("startupProbe", &"\"/healthz\"", &path("startupProbe")),
        Check::equal("livenessProbe", &"\"/healthz\"", &path("livenessProbe")),
    ]
}

/// The program takes the arguments, and listens where the ports say.
fn check_arguments(set: &Value, program: &Path) -> Result<Vec<Check>> {
    let template = &set["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    let arguments = container["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let output = Command::new(program)
        .args(arguments)
        .arg("--print-config")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let listen = text.lines().find(|line| line.starts_with("listen = ")).unwrap_or("listens nowhere");
    let port = &container["ports"][0]["containerPort"];
    let annotated = template["metadata"]["annotations"]["prometheus.io/port"].as_str().unwrap_or("none");
    let is_at_port = listen.contains(&format!("= \"0.0.0.0:{port}\""));
    Ok(vec![
        Check::equal("arguments accepted", &0, &output.status.code().unwrap_or(-1)),
        Check::equal("listens at the pod's port", &true, &is_at_port),
        Check::equal("annotated port", &port, &annotated),
    ])
}

fn check_monitor(monitor: &Value, set: &Value) -> Vec<Check> {
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    vec![
        Check::equal("monitor: pods", &labels(set), &monitor["spec"]["selector"]["matchLabels"]),
        Check::equal("monitor: port", &container["ports"][0]["name"], &endpoint["port"]),
        Check::equal("monitor: namespace", &set["metadata"]["namespace"], &monitor["metadata"]["namespace"]),
    ]
}

fn labels(set: &Value) -> &Value {
    &set["spec"]["template"]["metadata"]["labels"]
}

/// `kubernetes-validate` in an environment of its own.
struct Validator {
    folder: PathBuf,
}

impl Validator {
    fn new(manifests: &Path) -> Result<Self> {
        let folder = tools::target_dir()?.join("package/kubernetes");
        let requirements = manifests.join("requirements.txt");
        let installed = folder.join("requirements.txt");
        let wanted = fs::read(&requirements).context("cannot read requirements.txt")?;
        if fs::read(&installed).is_ok_and(|have| have == wanted) {
            return Ok(Self { folder });
        }
        tools::empty_folder(&folder)?;
        tools::ensure_installed("python3", "python3 python3-venv")?;
        tools::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement"]);
        tools::run(pip.arg(&requirements))?;
        fs::write(&installed, wanted).context("cannot write what is installed")?;
        Ok(Self { folder })
    }

    fn accepts(&self, manifest: &Path, version: &str) -> Result<bool> {
        let output = Command::new(self.folder.join("bin/kubernetes-validate"))
            .args(["--strict", "--kubernetes-version", version])
            .arg(manifest)
            .output()
            .context("cannot run kubernetes-validate")?;
        Ok(output.status.success())
    }

    fn read(&self, manifest: &Path) -> Result<Value> {
        let output =
            Command::new(self.folder.join("bin/python")).args(["-c", TO_JSON]).arg(manifest).output();
        let output = output.context("cannot run python")?;
        ensure!(output.status.success(), "{} is no YAML", manifest.display());
        serde_json::from_slice(&output.stdout).context("YAML that is no JSON")
    }
}
