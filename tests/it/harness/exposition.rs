//! A strict reader of the text format of Prometheus, version 0.0.4: what it takes, every scraper takes.
//! Never: shares code with what writes it. Always: panics at the first thing that the format or good order forbids.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// What was scraped.
#[derive(Debug, Default)]
pub struct Scrape {
    /// Types of the families, in order of appearance.
    pub families: Vec<(String, String)>,
    samples: Vec<(String, Labels, f64)>,
}

impl Scrape {
    /// Reads a whole text.
    #[track_caller]
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut scrape = Self::default();
        let mut help = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, words) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(!words.is_empty() && is_name(name), "{line}");
                help = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert_eq!(help.as_deref(), Some(name), "HELP stands right before TYPE");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(scrape.families.iter().all(|(known, _)| known != name), "{name} stands twice");
                scrape.families.push((name.to_owned(), kind.to_owned()));
            } else {
                assert!(!line.starts_with('#'), "{line}");
                let sample = sample(line);
                let (family, kind) = scrape.families.last().unwrap_or_else(|| panic!("no family: {line}"));
                let suffix =
                    sample.0.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("not of {family}: {line}"));
                let fits = if kind == "histogram" {
                    ["_bucket", "_count", "_sum"].contains(&suffix)
                } else {
                    suffix.is_empty()
                };
                assert!(fits, "not a line of a {kind}: {line}");
                assert!(kind == "gauge" || sample.2 >= 0.0, "{line}");
                scrape.samples.push(sample);
            }
        }
        let mut seen = HashSet::new();
        for (name, labels, _) in &scrape.samples {
            assert!(seen.insert((name.clone(), labels.clone())), "{name} {labels:?} stands twice");
        }
        scrape.check_families();
        scrape
    }

    #[track_caller]
    fn check_families(&self) {
        for (family, kind) in &self.families {
            let of_family = |sample: &&(String, Labels, f64)| sample.0.starts_with(family.as_str());
            assert!(self.samples.iter().any(|sample| of_family(&sample)), "{family} is empty");
            if kind == "histogram" {
                self.check_histogram(family);
            }
        }
    }

    /// Buckets rise in their bounds and never fall in their counts; the last is +Inf, and the count.
    #[track_caller]
    fn check_histogram(&self, family: &str) {
        let mut buckets: HashMap<Labels, Vec<(f64, f64)>> = HashMap::new();
        for (_, labels, value) in self.samples.iter().filter(|(name, ..)| *name == format!("{family}_bucket")) {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap_or_else(|| panic!("{family}: a bucket without a bound"));
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound is a number") };
            buckets.entry(labels).or_default().push((bound, *value));
        }
        assert!(!buckets.is_empty(), "{family} has no buckets");
        for (labels, buckets) in buckets {
            let rises = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            assert!(rises, "{family} {labels:?}: {buckets:?}");
            let (bound, all) = buckets[buckets.len() - 1];
            assert_eq!(bound, f64::INFINITY, "{family} {labels:?}");
            let own = |suffix: &str| {
                let name = format!("{family}{suffix}");
                let found = self.samples.iter().find(|(n, l, _)| *n == name && *l == labels);
                found.unwrap_or_else(|| panic!("no {name} {labels:?}")).2
            };
            assert_eq!(own("_count"), all, "{family} {labels:?}");
            assert!(own("_sum") >= 0.0);
        }
    }

    /// The sum of all samples of that name whose labels have these values.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).map(|(_, value)| value).sum()
    }

    /// The samples of that name whose labels have these values.
    pub fn find<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = (&'a Labels, f64)> + 'a {
        let named = self.samples.iter().filter(move |(own, ..)| own == name);
        let fits = |own: &Labels| labels.iter().all(|(name, value)| own.get(*name).is_some_and(|own| own == value));
        named.filter(move |(_, own, _)| fits(own)).map(|(_, own, value)| (own, *value))
    }

    /// Whether there is a family of that name.
    pub fn has(&self, family: &str) -> bool {
        self.families.iter().any(|(name, _)| name == family)
    }
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty()
}

#[track_caller]
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (value, behind) = quoted(behind).unwrap_or_else(|| panic!("no end of a label: {line}"));
            assert!(labels.insert(label.to_owned(), value).is_none(), "{label} twice: {line}");
            if let Some(behind) = behind.strip_prefix('}') {
                rest = behind;
                break;
            }
            rest = behind.strip_prefix(',').unwrap_or_else(|| panic!("neither , nor }}: {line}"));
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
    (name.to_owned(), labels, value)
}

/// A text up to its unescaped quote, and what is behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                '\\' => '\\',
                '"' => '"',
                'n' => '\n',
                other => panic!("no escape: \\{other}"),
            }),
            c => value.push(c),
        }
    }
    None
}
