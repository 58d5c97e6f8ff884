//! Figures, and how they are shown.

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a result is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// What a figure counts, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Less is better.
    Milliseconds,
    /// Less is better.
    Microseconds,
    /// More is better.
    PerSecond,
    /// Less is better: of one core.
    Percent,
    /// Less is better.
    Megabytes,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::PerSecond => "/s",
            Self::Percent => "%",
            Self::Megabytes => "MB",
        }
    }
}

/// All figures of a run, by what they measure, in the order they came; each with its samples by system.
#[derive(Default)]
pub struct Report {
    rows: Vec<(String, Unit, BTreeMap<String, Vec<f64>>)>,
}

impl Report {
    /// Adds a sample.
    pub fn add(&mut self, what: &str, unit: Unit, system: &str, figure: f64) {
        let at = self.rows.iter().position(|(known, ..)| known == what).unwrap_or_else(|| {
            self.rows.push((what.to_owned(), unit, BTreeMap::new()));
            self.rows.len() - 1
        });
        self.rows[at].2.entry(system.to_owned()).or_default().push(figure);
    }

    /// Shows medians, and for two systems the ratio of `first` to the other.
    ///
    /// # Errors
    /// A figure is no number.
    pub fn show(&self, output: Output, first: &str) -> Result<()> {
        match output {
            Output::Json => {
                let text =
                    serde_json::to_string_pretty(&self.json(first)).context("a figure is no number")?;
                println!("{text}");
            }
            Output::Text => print!("{}", self.text(first)),
        }
        Ok(())
    }

    fn json(&self, first: &str) -> Value {
        let rows = self.rows.iter().map(|(what, unit, systems)| {
            let figures: BTreeMap<&String, Value> = systems
                .iter()
                .map(|(system, samples)| (system, json!({"median": median(samples), "samples": samples})))
                .collect();
            json!({"what": what, "unit": unit.name(), "systems": figures, "ratio": ratio(systems, first)})
        });
        Value::Array(rows.collect())
    }

    fn text(&self, first: &str) -> String {
        let width = self.rows.iter().map(|(what, ..)| what.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (what, unit, systems) in &self.rows {
            text.push_str(&format!("{what:width$}"));
            for (system, samples) in systems {
                let figure = median(samples).map(shown).unwrap_or_default();
                text.push_str(&format!("  {system} {figure:>9} {}", unit.name()));
            }
            if let Some(ratio) = ratio(systems, first) {
                text.push_str(&format!("  ×{ratio:.2}"));
            }
            text.push('\n');
        }
        text
    }
}

fn shown(figure: f64) -> String {
    if figure >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

/// The first system's median over the other's.
fn ratio(systems: &BTreeMap<String, Vec<f64>>, first: &str) -> Option<f64> {
    let ours = median(systems.get(first)?)?;
    let (_, theirs) = systems.iter().find(|(system, _)| *system != first)?;
    median(theirs).filter(|theirs| *theirs > 0.0).map(|theirs| ours / theirs)
}

/// The middle of the samples; `None` of none.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// How long each of many requests took.
pub struct Took {
    /// Of each.
    pub milliseconds: Vec<f64>,
    /// From the first request until the last answer.
    pub time: Duration,
}

impl Took {
    /// Requests in a second.
    pub fn per_second(&self) -> f64 {
        self.milliseconds.len() as f64 / self.time.as_secs_f64()
    }
}

/// The figure below which so many percent are.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_row_shows_both_systems_and_their_ratio() {
        let mut report = Report::default();
        for (system, figure) in [("coracle", 200.0), ("etcd", 100.0), ("coracle", 400.0)] {
            report.add("puts", Unit::PerSecond, system, figure);
        }
        assert_eq!(report.text("coracle"), "puts  coracle       300 /s  etcd       100 /s  ×3.00\n");
        assert_eq!(report.json("coracle")[0]["ratio"], json!(3.0));
    }
}
