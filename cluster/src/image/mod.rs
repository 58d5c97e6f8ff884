//! Images without a registry: built from Debian packages, written as OCI archives, loaded into every node.

pub mod debian;
pub mod load;
pub mod oci;
pub mod recipe;

use crate::args::{ImageBuildArgs, ImageCommand, ImageLoadArgs};
use crate::layout::{Layout, home};
use crate::spec::Spec;
use crate::supervisor::read_spec;
use anyhow::{Context, Result};
use futures::future::try_join_all;
use recipe::Recipe;
use std::path::{Path, PathBuf};

/// Runs `coracle image …`.
///
/// # Errors
/// What could not be read, built or loaded.
pub async fn run(command: ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Load(args) => load_files(args).await,
        ImageCommand::Build(args) => build(args).await,
    }
}

async fn load_files(args: ImageLoadArgs) -> Result<()> {
    let layout = Layout::of(&args.which);
    anyhow::ensure!(
        layout.spec().exists(),
        "there is no cluster {}: make it with `coracle up --name {}`",
        args.which.name,
        args.which.name
    );
    let spec = read_spec(&layout)?;
    for file in &args.files {
        anyhow::ensure!(file.is_file(), "{} is no file", file.display());
        let names = load::into_all_nodes(&layout, &spec, file).await?;
        eprintln!("loaded {} into {} nodes", names.join(", "), spec.nodes);
    }
    Ok(())
}

async fn build(args: ImageBuildArgs) -> Result<()> {
    let mut packages = Vec::new();
    for package in &args.packages {
        packages.push(
            package
                .strip_prefix("debian:")
                .with_context(|| format!("{package:?} is not of the form debian:PACKAGE"))?
                .to_owned(),
        );
    }
    let first = packages.first().context("no package was named")?;
    let mut recipe =
        Recipe::named(first).filter(|_| packages.len() == 1).unwrap_or_else(|| Recipe::plain(&packages));
    if !args.cmd.is_empty() {
        recipe.cmd = args.cmd.clone();
    }
    if let Some(tag) = &args.tag {
        recipe.tag = tag.clone();
    }
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{first}.tar")));
    let target = out.clone();
    let tag = recipe.tag.clone();
    let bytes = tokio::task::spawn_blocking(move || make(&recipe, &target))
        .await
        .context("the build was cut off")??;
    eprintln!("built {tag} ({:.1} MB) in {}", mebibytes(bytes), out.display());
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

/// Builds an image into an archive; returns the archive's size in bytes. Blocks.
fn make(recipe: &Recipe, out: &Path) -> Result<u64> {
    let tree = debian::tree(recipe)?;
    oci::write(recipe, &tree, out)?;
    Ok(std::fs::metadata(out).with_context(|| format!("cannot read {}", out.display()))?.len())
}

/// Where built images wait for the next cluster.
fn cache() -> PathBuf {
    let base = if nix::unistd::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else {
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from)
    };
    base.join("coracle").join("images")
}

/// Builds busybox, nginx and redis unless they wait in the cache, and loads them into every node that lacks them.
///
/// # Errors
/// A package cannot be had, or a node does not take the image.
pub async fn provide(layout: &Layout, spec: &Spec) -> Result<Vec<String>> {
    let recipes = Recipe::all();
    let files: Vec<PathBuf> = recipes
        .iter()
        .map(|recipe| cache().join(format!("{}-{}.tar", recipe.name, recipe.fingerprint())))
        .collect();
    let provided = recipes.iter().map(|recipe| recipe.name.clone()).collect();
    try_join_all(recipes.into_iter().zip(files.clone()).map(|(recipe, file)| built(recipe, file))).await?;
    load::missing_into_all_nodes(layout, spec, &files).await?;
    Ok(provided)
}

/// Builds the archive of a recipe unless it is there.
async fn built(recipe: Recipe, file: PathBuf) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(cache()).with_context(|| format!("cannot make {}", cache().display()))?;
    let name = recipe.name.clone();
    // Two clusters may build it at the same time: each writes a file of its own, and the last one stays.
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let made = tokio::task::spawn_blocking(move || {
        make(&recipe, &part).and_then(|_| std::fs::rename(&part, &file).context("cannot keep the image"))
    });
    made.await
        .context("the build was cut off")?
        .with_context(|| format!("cannot build the image {name} (`up --no-images` does without)"))
}
