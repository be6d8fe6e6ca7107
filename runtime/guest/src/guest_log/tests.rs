use super::*;
use crate::batch::Batch;
use crate::testing;

#[test]
fn a_line_is_escaped_and_truncated() {
    let cases: [(&[u8], &str); 5] = [
        (b"plain", "plain"),
        (b"tab\tand \x1b[31mred", "tab\\tand \\u{1b}[31mred"),
        (b"windows\r", "windows"),
        (b"not \xff utf-8", "not \u{fffd} utf-8"),
        (&[b'x'; LINE_MAX + 1], &format!("{}…", "x".repeat(LINE_MAX))),
    ];
    for (bytes, wanted) in cases {
        let mut line = OpenLine::default();
        line.push(bytes);
        assert_eq!(line.take(), wanted);
        assert_eq!(line.take(), "", "nothing of the previous line remains");
    }
}

/// The logged text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn guest_text_is_logged_line_by_line_with_its_row() {
    let handler = testing::handler(&testing::engine(), &testing::printing(), 5_000);
    let mut batch = Batch::new();
    testing::fill(&mut batch, &[&["one\ntwo\n", "no end"], &["\u{1b}[31m\n"]]);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        testing::call_here(&handler, &batch).0.unwrap();
    });
    let line = |offset: u64, line: &str| {
        format!(
            " INFO keylane::guest: guest log line handler=\"test\" stream=\"stdout\" topic=\"orders\" \
             partition=7 offset={offset} line={line:?}\n"
        )
    };
    let wanted = [line(100, "one"), line(100, "two"), line(101, "no end"), line(102, "\\u{1b}[31m")];
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(logged, wanted.concat());
}
