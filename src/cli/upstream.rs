//! Flags of the Azure Blob CSI driver that mean nothing here: accepted, so that its manifests and charts start this driver
//! unchanged, and named once in the log.

/// Flags without an effect. Values are not looked at.
#[derive(Debug, Default, clap::Args)]
pub(super) struct UpstreamArgs {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    kubeconfig: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cloud_config_secret_name: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cloud_config_secret_namespace: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_empty_cloud_config: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    custom_user_agent: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    user_agent_suffix: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_blobfuse_proxy: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    blobfuse_proxy_endpoint: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    blobfuse_proxy_connect_timeout: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_get_volume_stats: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    vol_stats_cache_expire_in_minutes: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    append_timestamp_cache_dir: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    mount_permissions: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    append_mount_error_help_link: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_aznfs_mount: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_volume_mount_group: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    fsgroup_change_policy: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sas_token_expiration_minutes: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    wait_for_azcopy_timeout_minutes: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    kube_api_qps: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    kube_api_burst: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    max_procs: Option<String>,
    /// klog's level.
    #[arg(short = 'v', hide = true, value_name = "LEVEL")]
    verbosity: Option<String>,
}

impl UpstreamArgs {
    /// Names the flags that were given, once.
    pub(super) fn log(&self) {
        let shown = format!("{self:?}");
        let given: Vec<&str> = shown
            .split([',', '{'])
            .filter_map(|field| field.split_once(": Some("))
            .map(|(name, _)| name.trim())
            .collect();
        if !given.is_empty() {
            tracing::info!("flags without an effect here: {}", given.join(", ").replace('_', "-"));
        }
    }
}
