//! Which plugins admit (`--enable-admission-plugins`, `--disable-admission-plugins`) and how they are configured
//! (`--admission-control-config-file`).

use super::configuration::{self, Configuration};
use super::optional::event_rate::Limits;
use super::optional::node_selector::Selectors;
use super::optional::tolerations::Tolerations;
use super::pod_security::Settings;
use super::quota::LimitedResource;
use crate::outbound::credentials::Credentials;
use anyhow::{Context, bail, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Flags, named as kube-apiserver's.
#[derive(Clone, Debug, clap::Args)]
pub struct AdmissionArgs {
    /// Plugins that admit besides those that do by default.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub enable_admission_plugins: Vec<String>,
    /// Plugins that do not admit though they do by default.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub disable_admission_plugins: Vec<String>,
    /// All plugins that admit, the others not: the old way to say so.
    #[arg(long, value_delimiter = ',', value_name = "NAME", hide = true)]
    pub admission_control: Vec<String>,
    /// Seconds that pods stay on a node that is not ready, where they do not say.
    #[arg(long, default_value_t = SECONDS)]
    pub default_not_ready_toleration_seconds: i64,
    /// Seconds that pods stay on a node that is not heard of, where they do not say.
    #[arg(long, default_value_t = SECONDS)]
    pub default_unreachable_toleration_seconds: i64,
    /// AdmissionConfiguration (apiserver.config.k8s.io/v1): how plugins are configured.
    #[arg(long)]
    pub admission_control_config_file: Option<PathBuf>,
}

/// How long pods outlive a short loss of their node.
const SECONDS: i64 = 300;

impl Default for AdmissionArgs {
    fn default() -> Self {
        Self {
            enable_admission_plugins: Vec::new(),
            disable_admission_plugins: Vec::new(),
            admission_control: Vec::new(),
            admission_control_config_file: None,
            default_not_ready_toleration_seconds: SECONDS,
            default_unreachable_toleration_seconds: SECONDS,
        }
    }
}

/// How a plugin stands here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// On unless it is switched off.
    On,
    /// Off unless it is switched on.
    Off,
    /// Kubernetes has it, off by default, and this server does not.
    Absent,
}

/// Declares all plugins of Kubernetes in their order.
macro_rules! plugins {
    ($($name:ident $stands:ident),* $(,)?) => {
        /// A plugin of admission.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Plugin { $(#[doc = stringify!($name)] $name),* }

        const ALL: &[(Plugin, &str, Stands)] = &[$((Plugin::$name, stringify!($name), Stands::$stands)),*];
    };
}

plugins! {
    AlwaysAdmit Off,
    NamespaceAutoProvision Off,
    NamespaceLifecycle On,
    NamespaceExists Off,
    LimitPodHardAntiAffinityTopology Off,
    LimitRanger On,
    ServiceAccount On,
    NodeRestriction Off,
    TaintNodesByCondition On,
    AlwaysPullImages Off,
    ImagePolicyWebhook Absent,
    PodSecurity On,
    PodNodeSelector Off,
    Priority On,
    DefaultTolerationSeconds On,
    PodTolerationRestriction Off,
    EventRateLimit Off,
    ExtendedResourceToleration Off,
    DefaultStorageClass On,
    StorageObjectInUseProtection On,
    OwnerReferencesPermissionEnforcement Off,
    PersistentVolumeClaimResize On,
    RuntimeClass On,
    CertificateApproval On,
    CertificateSigning On,
    ClusterTrustBundleAttest On,
    CertificateSubjectRestriction On,
    DefaultIngressClass On,
    DenyServiceExternalIPs Off,
    PodTopologyLabels On,
    MutatingAdmissionPolicy On,
    MutatingAdmissionWebhook On,
    ValidatingAdmissionPolicy On,
    ValidatingAdmissionWebhook On,
    ResourceQuota On,
    AlwaysDeny Off,
}

impl Plugin {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        ALL[self as usize].1
    }

    fn bit(self) -> u64 {
        1 << self as usize
    }
}

/// The plugins that admit, and their settings.
#[derive(Default)]
pub struct Plugins {
    on: u64,
    /// Of PodNodeSelector.
    pub node_selectors: Selectors,
    /// Of PodTolerationRestriction.
    pub tolerations: Tolerations,
    /// Of EventRateLimit.
    pub events: Limits,
    /// Of PodSecurity.
    pub pod_security: Settings,
    /// Of MutatingAdmissionWebhook: who this server is to webhooks.
    pub to_mutating: Arc<Credentials>,
    /// Of ValidatingAdmissionWebhook.
    pub to_validating: Arc<Credentials>,
    /// Of ResourceQuota.
    pub limited: Vec<LimitedResource>,
    /// Of DefaultTolerationSeconds: on nodes that are not ready, and on those that are not heard of.
    pub seconds: [i64; 2],
}

impl Plugins {
    /// By the flags.
    ///
    /// # Errors
    /// A plugin is unknown or not here, or its configuration cannot be used.
    pub fn new(args: &AdmissionArgs) -> anyhow::Result<Self> {
        let seconds =
            [args.default_not_ready_toleration_seconds, args.default_unreachable_toleration_seconds];
        let mut own = Self { on: enabled(args)?, seconds, ..Self::default() };
        own.configure(args.admission_control_config_file.as_deref()).context("failed to apply admission")?;
        Ok(own)
    }

    fn configure(&mut self, file: Option<&Path>) -> anyhow::Result<()> {
        let file = Configuration::read(file).context("failed to read plugin config")?;
        let on = self.on;
        for (plugin, name, _) in ALL.iter().filter(|(plugin, ..)| on & plugin.bit() != 0) {
            let text = file.of(name)?;
            self.configure_one(*plugin, text.as_deref())
                .with_context(|| format!("couldn't init admission plugin {name:?}"))?;
        }
        configuration::complete(&mut self.pod_security)
            .context("failed to initialize admission plugin \"PodSecurity\"")
    }

    fn configure_one(&mut self, plugin: Plugin, text: Option<&str>) -> anyhow::Result<()> {
        match plugin {
            Plugin::PodNodeSelector => self.node_selectors = configuration::node_selectors(text),
            Plugin::PodTolerationRestriction => self.tolerations = configuration::tolerations(text)?,
            Plugin::EventRateLimit => self.events = configuration::event_limits(text)?,
            Plugin::PodSecurity => self.pod_security = configuration::pod_security(text)?,
            Plugin::MutatingAdmissionWebhook => self.to_mutating = configuration::credentials(text)?,
            Plugin::ValidatingAdmissionWebhook => self.to_validating = configuration::credentials(text)?,
            Plugin::ResourceQuota => self.limited = configuration::limited(text)?,
            _ => {}
        }
        Ok(())
    }

    /// Whether a plugin admits.
    #[must_use]
    pub fn has(&self, plugin: Plugin) -> bool {
        self.on & plugin.bit() != 0
    }
}

/// The plugins that admit, as bits.
fn enabled(args: &AdmissionArgs) -> anyhow::Result<u64> {
    let AdmissionArgs { enable_admission_plugins, disable_admission_plugins, admission_control, .. } = args;
    let mut faults = Vec::new();
    let by_old = !admission_control.is_empty();
    if by_old && !(enable_admission_plugins.is_empty() && disable_admission_plugins.is_empty()) {
        faults.push("admission-control and enable-admission-plugins/disable-admission-plugins flags are mutually exclusive".to_owned());
    }
    let unknown = |flag: &str, names: &[String]| -> Vec<String> {
        let unknown = names.iter().filter(|name| !ALL.iter().any(|(_, own, _)| own == name));
        unknown.map(|name| format!("{flag} plugin {name:?} is unknown")).collect()
    };
    faults.extend(unknown("admission-control", admission_control));
    faults.extend(unknown("enable-admission-plugins", enable_admission_plugins));
    faults.extend(unknown("disable-admission-plugins", disable_admission_plugins));
    let both: BTreeSet<&str> = enable_admission_plugins
        .iter()
        .filter(|name| disable_admission_plugins.contains(name))
        .map(String::as_str)
        .collect();
    if !both.is_empty() {
        let both: Vec<&str> = both.into_iter().collect();
        faults.push(format!(
            "[{}] in enable-admission-plugins and disable-admission-plugins overlapped",
            both.join(" ")
        ));
    }
    match faults.as_slice() {
        [] => {}
        [fault] => bail!("{fault}"),
        faults => bail!("[{}]", faults.join(", ")),
    }
    let mut on = 0;
    for (plugin, name, stands) in ALL {
        let named = |names: &[String]| names.iter().any(|own| own == name);
        let wanted = match by_old {
            true => named(admission_control),
            false => {
                named(enable_admission_plugins)
                    || (*stands == Stands::On && !named(disable_admission_plugins))
            }
        };
        ensure!(
            !wanted || *stands != Stands::Absent,
            "admission plugin {name:?} is not part of this server; leave it out, and let a ValidatingWebhookConfiguration ask instead"
        );
        if wanted {
            on |= plugin.bit();
        }
    }
    Ok(on)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugins(flags: &[&str]) -> Result<Vec<&'static str>, String> {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: AdmissionArgs,
        }
        let args = <Cli as clap::Parser>::parse_from(["x"].iter().chain(flags)).args;
        let plugins = Plugins::new(&args).map_err(|error| format!("{error:#}"))?;
        Ok(ALL.iter().filter(|(plugin, ..)| plugins.has(*plugin)).map(|(_, name, _)| *name).collect())
    }

    #[test]
    fn some_plugins_admit_by_default_and_flags_name_others() {
        let usual = plugins(&[]).expect("none");
        assert_eq!(usual.len(), 22);
        assert!(usual.contains(&"ServiceAccount") && !usual.contains(&"NodeRestriction"), "{usual:?}");
        let more = plugins(&["--enable-admission-plugins=NodeRestriction,AlwaysPullImages,Priority"])
            .expect("known");
        assert_eq!(more.len(), 24);
        let less = plugins(&["--disable-admission-plugins=ServiceAccount,NodeRestriction"]).expect("known");
        assert_eq!(less.len(), 21);
        let old = plugins(&["--admission-control=LimitRanger,AlwaysDeny"]).expect("known");
        assert_eq!(old, ["LimitRanger", "AlwaysDeny"]);
    }

    #[test]
    fn names_that_mean_nothing_or_too_much_are_refused() {
        let cases: [(&[&str], &str); 5] = [
            (&["--enable-admission-plugins=Nope"], "enable-admission-plugins plugin \"Nope\" is unknown"),
            (
                &["--disable-admission-plugins=A,B"],
                "[disable-admission-plugins plugin \"A\" is unknown, disable-admission-plugins plugin \"B\" is unknown]",
            ),
            (
                &[
                    "--enable-admission-plugins=Priority,LimitRanger",
                    "--disable-admission-plugins=Priority,LimitRanger",
                ],
                "[LimitRanger Priority] in enable-admission-plugins and disable-admission-plugins overlapped",
            ),
            (
                &["--admission-control=Priority", "--disable-admission-plugins=Priority"],
                "admission-control and enable-admission-plugins/disable-admission-plugins flags are mutually exclusive",
            ),
            (
                &["--enable-admission-plugins=ImagePolicyWebhook"],
                "admission plugin \"ImagePolicyWebhook\" is not part of this server; leave it out, and let a ValidatingWebhookConfiguration ask instead",
            ),
        ];
        for (flags, why) in cases {
            assert_eq!(plugins(flags), Err(why.to_owned()), "{flags:?}");
        }
    }
}
