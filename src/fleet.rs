//! stub
#[derive(clap::Args, Debug)]
pub(crate) struct FleetArgs {}
pub(crate) fn run(_: &FleetArgs) -> anyhow::Result<()> {
    Ok(())
}
