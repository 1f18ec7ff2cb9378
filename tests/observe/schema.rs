//! The schemas in `doc/`, for what nproxy reports as JSON.

use std::fs;
use std::path::Path;

use jsonschema::{Retrieve, Uri, Validator};
use serde_json::Value;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Schemas refer to one another by the names of their files.
struct Files;

impl Retrieve for Files {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Failure> {
        let name = uri.path().as_str().rsplit('/').next().unwrap_or_default().to_owned();
        Ok(serde_json::from_slice(&fs::read(doc().join(name))?)?)
    }
}

fn doc() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("doc")
}

fn validator(name: &str) -> Validator {
    let schema = fs::read(doc().join(format!("{name}.schema.json"))).expect(name);
    let schema: Value = serde_json::from_slice(&schema).expect("JSON");
    jsonschema::options().with_retriever(Files).build(&schema).expect("a valid schema")
}

/// Fails unless each of `reports` is as `doc/NAME.schema.json` says.
#[track_caller]
pub(crate) fn all_fit<'a>(name: &str, reports: impl IntoIterator<Item = &'a Value>) {
    let validator = validator(name);
    for report in reports {
        let errors = validator.iter_errors(report).map(|error| error.to_string());
        let errors: Vec<String> = errors.collect();
        assert!(errors.is_empty(), "{errors:?} in {report}");
    }
}

/// A schema that everything fits would show nothing.
#[test]
fn schemas_refuse_what_is_wrong() {
    for (name, wrong) in [
        ("stats", serde_json::json!({"version": 1, "engine": "uring"})),
        ("events", serde_json::json!({"event": "chunk", "seconds": 1.0, "stream": "stdout"})),
        ("events", serde_json::json!({"event": "party", "seconds": 1.0})),
        (
            "status",
            serde_json::json!({"sessions": [{"pid": 1, "command": [], "engine": "uring",
            "uptime_seconds": 1.0, "streams": [{"stream": "stdout"}]}]}),
        ),
        ("crash", serde_json::json!({"version": 1, "signal": 11})),
    ] {
        assert!(!validator(name).is_valid(&wrong), "{name}: {wrong}");
    }
}
