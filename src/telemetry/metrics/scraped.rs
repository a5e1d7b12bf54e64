//! A page as a scraper reads it: the counterpart of [`Page`](super::Page), for `azblob-csi stats`. It takes what Prometheus' text
//! format 0.0.4 allows and our pages print, and refuses the rest by line. Knows nothing of what is counted.

/// One series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric; of a histogram with `_bucket`, `_sum` or `_count` behind it.
    pub name: String,
    /// Names and values of its labels, as they stood there.
    pub labels: Vec<(String, String)>,
    /// The number.
    pub value: f64,
}

impl Sample {
    /// The value of a label; empty where it has none, which is the same to Prometheus.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// A line that is none of the format.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is none of Prometheus' text format: {reason}")]
pub struct BadPage {
    line: usize,
    reason: &'static str,
}

/// All samples of a page, in its order.
///
/// # Errors
/// [`BadPage`] names the first line that is wrong.
pub fn parse(page: &str) -> Result<Vec<Sample>, BadPage> {
    let mut samples = Vec::new();
    for (at, line) in page.split('\n').enumerate() {
        let line = line.trim_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        samples.push(sample(line).map_err(|reason| BadPage { line: at + 1, reason })?);
    }
    Ok(samples)
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let (name, mut rest) = metric_name(line)?;
    let mut labels = Vec::new();
    if let Some(inner) = rest.trim_start_matches(BLANKS).strip_prefix('{') {
        rest = inner.trim_start_matches(BLANKS);
        while !rest.starts_with('}') {
            let (label, behind) = one_label(rest)?;
            labels.push(label);
            rest = match behind.strip_prefix(',') {
                Some(behind) => behind.trim_start_matches(BLANKS),
                None if behind.starts_with('}') => behind,
                None => return Err("a label is followed by neither , nor }"),
            };
        }
        rest = &rest[1..];
    } else if !rest.starts_with(BLANKS) {
        return Err("there is no number behind the name");
    }
    let mut numbers = rest.split(BLANKS).filter(|word| !word.is_empty());
    let value = numbers.next().and_then(|text| text.parse().ok()).ok_or("there is no number behind the name")?;
    // A timestamp in milliseconds may follow.
    let timed = numbers.next().is_none_or(|time| time.parse::<i64>().is_ok());
    if !timed || numbers.next().is_some() {
        return Err("there is something behind the number");
    }
    Ok(Sample { name: name.to_owned(), labels, value })
}

const BLANKS: [char; 2] = [' ', '\t'];

/// A name of the format, and what is behind it.
fn metric_name(text: &str) -> Result<(&str, &str), &'static str> {
    let belongs = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':');
    let end = text.find(|letter: char| !belongs(letter)).unwrap_or(text.len());
    match end > 0 && !text.starts_with(|letter: char| letter.is_ascii_digit()) {
        true => Ok(text.split_at(end)),
        false => Err("it does not begin with a name"),
    }
}

type Label = (String, String);

/// `name="value"`, and what is behind it.
fn one_label(text: &str) -> Result<(Label, &str), &'static str> {
    let (name, rest) = metric_name(text)?;
    let rest = rest.trim_start_matches(BLANKS).strip_prefix('=').ok_or("a label has no value")?;
    let rest = rest
        .trim_start_matches(BLANKS)
        .strip_prefix('"')
        .ok_or("a label's value does not begin with a quotation mark")?;
    let (mut value, mut letters) = (String::new(), rest.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok(((name.to_owned(), value), rest[at + 1..].trim_start_matches(BLANKS))),
            '\\' => value.push(match letters.next() {
                Some((_, 'n')) => '\n',
                Some((_, meant @ ('\\' | '"'))) => meant,
                _ => return Err("a label's value has a backslash that stands for nothing"),
            }),
            _ => value.push(letter),
        }
    }
    Err("a label's value does not end")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{CALL_BOUNDS, Histogram, Labels, Page, table},
        *,
    };

    fn labels_of(sample: &Sample) -> Vec<(&str, &str)> {
        sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// What others write and the format allows as well.
    #[test]
    fn spaces_timestamps_comments_and_a_last_comma_are_allowed() {
        let page =
            "# HELP a something \"{\n\n  a{b = \"c\" , d=\"\\\"\\\\\\n\",} \t-1.5e3 1700000000000 \nb:total +Inf";
        let [first, second] = &parse(page).unwrap()[..] else { panic!() };
        assert_eq!((first.name.as_str(), first.value), ("a", -1500.0));
        assert_eq!(labels_of(first), [("b", "c"), ("d", "\"\\\n")]);
        assert_eq!((first.label("d"), first.label("none")), ("\"\\\n", ""));
        assert_eq!((second.name.as_str(), second.value, second.labels.len()), ("b:total", f64::INFINITY, 0));
    }

    #[test]
    fn what_is_no_page_is_refused_by_its_line() {
        for wrong in [
            "<html>",
            "9a 1",
            "a",
            "a one",
            "a-1",
            "a 1 then",
            "a 1 2 3",
            "a{",
            "a{} ",
            "a{b} 1",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"c\\t\"} 1",
            "a{b=\"c\"d=\"e\"} 1",
            "a{b=\"c\"",
        ] {
            let error = parse(&format!("# a page\nright 1\n{wrong}\n")).unwrap_err();
            assert_eq!(error.line, 3, "{wrong}: {error}");
        }
    }

    proptest! {
        /// Whatever a volume is called and whatever was counted: what the page says is what is read.
        #[test]
        fn what_our_pages_print_is_read_as_it_was_meant(
            series in vec((any::<String>(), "\\PC*", any::<u64>(), any::<f64>()), 0..8),
        ) {
            let (mut page, mut meant) = (Page::default(), Vec::new());
            for (volume, pvc, count, number) in &series {
                let labels = Labels::default().with("volume", volume.as_str()).with("pvc", pvc.as_str());
                page.count(&table::READ_BYTES, &labels, *count);
                page.sample(&table::USED, &labels, *number);
                meant.push((labels, *count, *number));
            }
            let read = parse(&page.text()).unwrap();
            prop_assert_eq!(read.len(), 2 * meant.len());
            let of = |name: &'static str| read.iter().filter(move |sample| sample.name == name);
            for ((counted, gauge), (labels, count, number)) in
                of(table::READ_BYTES.name).zip(of(table::USED.name)).zip(&meant)
            {
                let written: Vec<_> = labels.names().collect();
                prop_assert_eq!(labels_of(counted), written.clone());
                prop_assert_eq!(labels_of(gauge), written);
                prop_assert_eq!(counted.value, *count as f64);
                prop_assert!(gauge.value == *number || (gauge.value.is_nan() && number.is_nan()));
            }
        }

        #[test]
        fn a_histogram_is_read_bucket_by_bucket(volume in any::<String>(), seen in vec(0_u64..400_000, 0..50)) {
            let histogram = Histogram::new(CALL_BOUNDS);
            seen.iter().for_each(|milliseconds| histogram.observe(Duration::from_millis(*milliseconds)));
            let (mut page, meant) = (Page::default(), histogram.snapshot());
            let labels = Labels::default().with("volume", volume.as_str()).with("operation", "read");
            page.distribution(&table::OPERATION_DURATION, &labels, &meant);
            let read = parse(&page.text()).unwrap();
            let buckets: Vec<(f64, u64)> = read.iter().filter(|sample| sample.name.ends_with("_bucket"))
                .map(|sample| (sample.label("le").parse().unwrap(), sample.value as u64)).collect();
            prop_assert_eq!(buckets, meant.cumulative().collect::<Vec<_>>());
            let count = read.iter().find(|sample| sample.name.ends_with("_count")).unwrap();
            prop_assert_eq!((count.value as usize, count.label("volume")), (seen.len(), volume.as_str()));
        }

        /// A page of somebody else is refused or read, and never a reason to panic.
        #[test]
        fn no_text_makes_it_panic(text in "[a{}=\",\\\\ \n0-9#.e+-]*") {
            let _ = parse(&text);
        }
    }
}
