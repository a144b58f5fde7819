//! The table of figures: name, goal, measured value, ratio, and whether the goal is met.

use std::time::Duration;

/// Headings of the columns.
const HEADINGS: [&str; 6] = ["what", "goal", "p50", "p99", "ratio", ""];

/// Times of repeated measurements.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Duration>);

/// Upper limits of a figure, in its unit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Goal {
    /// Limit of the median, or of a single value.
    pub p50: Option<f64>,
    /// Limit of the 99th percentile.
    pub p99: Option<f64>,
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Row([String; 6]);

impl Samples {
    /// Returns a percentile by nearest rank; None without samples.
    fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// The median.
    pub fn median(&self) -> Duration {
        self.percentile(50).unwrap_or_default()
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<T: IntoIterator<Item = Duration>>(times: T) -> Self {
        Self(times.into_iter().collect())
    }
}

impl Extend<Duration> for Samples {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, times: T) {
        self.0.extend(times);
    }
}

impl Goal {
    /// No goal: the figure only explains another.
    pub const NONE: Self = Self { p50: None, p99: None };

    /// Limits the median, or a single value.
    pub const fn at_most(p50: f64) -> Self {
        Self { p50: Some(p50), p99: None }
    }

    /// Limits the 99th percentile.
    pub const fn p99(p99: f64) -> Self {
        Self { p50: None, p99: Some(p99) }
    }

    fn text(self, unit: &str) -> String {
        match (self.p50, self.p99) {
            (None, None) => String::new(),
            (Some(value), None) => format!("≤ {value}{unit}"),
            (None, Some(p99)) => format!("p99 ≤ {p99}{unit}"),
            (Some(p50), Some(p99)) => format!("p50 ≤ {p50}{unit}, p99 ≤ {p99}{unit}"),
        }
    }

    /// Whether the goal is met; None without a goal.
    fn is_met(self, p50: f64, p99: f64) -> Option<bool> {
        let met = [(self.p50, p50), (self.p99, p99)];
        let met: Vec<_> =
            met.into_iter().filter_map(|(goal, value)| Some(value <= goal?)).collect();
        (!met.is_empty()).then(|| met.iter().all(|met| *met))
    }
}

impl Row {
    /// A row of times, shown in milliseconds.
    pub fn times(what: impl Into<String>, goal: Goal, samples: &Samples) -> Self {
        let [p50, p99] = [50, 99]
            .map(|percent| samples.percentile(percent).unwrap_or_default().as_secs_f64() * 1e3);
        let what = format!("{} (n = {})", what.into(), samples.0.len());
        let [shown50, shown99] = [p50, p99].map(|ms| format!("{ms:.2} ms"));
        Self([what, goal.text(" ms"), shown50, shown99, String::new(), verdict(goal, p50, p99)])
    }

    /// A row with a count.
    pub fn count(what: impl Into<String>, goal: Goal, count: u64) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let value = count as f64;
        Self::single(what, goal, "", count.to_string(), value)
    }

    /// A row of memory, given in KiB as in `/proc`, shown in MB (10^6 bytes).
    pub fn memory(what: impl Into<String>, goal: Goal, kib: u64) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let megabytes = kib as f64 * 1024.0 / 1e6;
        Self::single(what, goal, " MB", format!("{megabytes:.1} MB"), megabytes)
    }

    /// A row with the ratio of two times.
    pub fn ratio(what: impl Into<String>, goal: Goal, of: Duration, to: Duration) -> Self {
        let ratio = of.as_secs_f64() / to.as_secs_f64();
        let empty = String::new();
        let verdict = verdict(goal, ratio, ratio);
        Self([what.into(), goal.text(""), empty.clone(), empty, format!("{ratio:.2}"), verdict])
    }

    /// Prefixes the name with its subject.
    pub fn of(mut self, subject: &str) -> Self {
        self.0[0] = format!("{subject}: {}", self.0[0]);
        self
    }

    fn single(what: impl Into<String>, goal: Goal, unit: &str, shown: String, value: f64) -> Self {
        let empty = String::new();
        let verdict = verdict(goal, value, value);
        Self([what.into(), goal.text(unit), shown, empty.clone(), empty, verdict])
    }
}

fn verdict(goal: Goal, p50: f64, p99: f64) -> String {
    match goal.is_met(p50, p99) {
        Some(true) => "ok",
        Some(false) => "OVER",
        None => "",
    }
    .into()
}

/// Formats all rows for a terminal.
pub fn plain(rows: &[Row]) -> String {
    let lines: Vec<_> = rows.iter().map(|row| row.0.each_ref().map(String::as_str)).collect();
    aligned(&HEADINGS, &lines)
}

/// Formats all rows as Markdown.
pub fn markdown(rows: &[Row]) -> String {
    let lines: Vec<_> = rows.iter().map(|row| row.0.each_ref().map(String::as_str)).collect();
    markdown_of(&HEADINGS, &lines)
}

/// Formats a table with columns aligned by spaces.
pub fn aligned<const N: usize>(headings: &[&str; N], lines: &[[&str; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let one = |cells: &[&str; N]| {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let rule = format!("{}\n", "-".repeat(widths.iter().sum::<usize>() + 2 * (N - 1)));
    one(headings) + &rule + &lines.iter().map(one).collect::<String>()
}

/// Formats a Markdown table.
pub fn markdown_of<const N: usize>(headings: &[&str; N], lines: &[[&str; N]]) -> String {
    let one = |cells: &[&str; N]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", " --- |".repeat(N));
    one(headings) + &rule + &lines.iter().map(one).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(times: impl IntoIterator<Item = u64>) -> Samples {
        times.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_use_the_nearest_rank() {
        let hundred = milliseconds((1..=100).rev());
        assert_eq!(hundred.percentile(50), Some(Duration::from_millis(50)));
        assert_eq!(hundred.percentile(99), Some(Duration::from_millis(99)));
        assert_eq!(milliseconds([7]).percentile(99), Some(Duration::from_millis(7)));
        assert_eq!(milliseconds([]).percentile(50), None);
    }

    #[test]
    fn verdict_checks_every_goal() {
        let samples = milliseconds([1, 1, 1, 9]);
        let both = |p50, p99| Goal { p50: Some(p50), p99: Some(p99) };
        let table = [
            (Goal::NONE, ""),
            (Goal::at_most(1.0), "ok"),
            (Goal::at_most(0.9), "OVER"),
            (Goal::p99(9.0), "ok"),
            (Goal::p99(8.9), "OVER"),
            (both(1.0, 9.0), "ok"),
            (both(1.0, 8.0), "OVER"),
            (both(0.5, 9.0), "OVER"),
        ];
        for (goal, verdict) in table {
            assert_eq!(Row::times("x", goal, &samples).0[5], verdict, "{goal:?}");
        }
    }

    #[test]
    fn columns_are_aligned_and_cells_kept() {
        let lines = [["ä", "2"], ["long", "3"]];
        assert_eq!(aligned(&["a", "b"], &lines), "a     b\n-------\nä     2\nlong  3\n");
        let markdown = "| a | b |\n| --- | --- |\n| ä | 2 |\n| long | 3 |\n";
        assert_eq!(markdown_of(&["a", "b"], &lines), markdown);
    }
}
