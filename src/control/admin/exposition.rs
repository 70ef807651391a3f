//! Figures as the text that Prometheus reads, version 0.0.4 of its format.
//! Always: every family has its HELP and TYPE in front of all of its lines; a text in a label is escaped.

use std::fmt::Display;
use std::fmt::Write;

/// A text in the making.
#[derive(Default)]
pub struct Exposition(String);

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Counter,
    Gauge,
    Histogram,
}

impl Type {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Names and values of labels, in order.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    /// Begins a family; its lines follow. `help` is one line without a backslash.
    pub fn family(&mut self, name: &str, kind: Type, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.word()));
    }

    /// A line of a family.
    pub fn line(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.0.push_str(name);
        let mut before = '{';
        for (label, text) in labels {
            self.0.push(before);
            self.write(format_args!("{label}=\""));
            self.escaped(text);
            self.0.push('"');
            before = ',';
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }

    /// The lines of a histogram: `within` counts what fell between a bound and the one before.
    pub fn histogram(&mut self, name: &str, labels: Labels<'_>, bounds: &[u64], within: &[u64], sum: impl Display) {
        let mut below = 0;
        let words = bounds.iter().map(u64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in words.zip(within) {
            below += count;
            let labels = [labels, &[("le", bound.as_str())]].concat();
            self.line(&format!("{name}_bucket"), &labels, below);
        }
        self.line(&format!("{name}_count"), labels, below);
        self.line(&format!("{name}_sum"), labels, sum);
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn write(&mut self, what: std::fmt::Arguments<'_>) {
        // A text takes everything.
        let _ = self.0.write_fmt(what);
    }

    fn escaped(&mut self, text: &str) {
        for char in text.chars() {
            match char {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_behind_their_family_and_labels_are_escaped() {
        let mut text = Exposition::default();
        text.family("a_total", Type::Counter, "Things.");
        text.line("a_total", &[("x", "q\"b\\n\n"), ("y", "")], 3);
        text.line("a_total", &[], 0.5);
        let want =
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"q\\\"b\\\\n\\n\",y=\"\"} 3\na_total 0.5\n";
        assert_eq!(text.into_text(), want);
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let mut text = Exposition::default();
        text.histogram("h", &[("s", "a")], &[1, 2], &[3, 0, 4], 9);
        let want = "h_bucket{s=\"a\",le=\"1\"} 3\nh_bucket{s=\"a\",le=\"2\"} 3\nh_bucket{s=\"a\",le=\"+Inf\"} 7\n\
                    h_count{s=\"a\"} 7\nh_sum{s=\"a\"} 9\n";
        assert_eq!(text.into_text(), want);
    }
}
