//! A kept pipeline is the one that its texts would give, whatever was changed in between.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::env::VarError;
use std::fs;
use std::io;
use std::path::PathBuf;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::kind::{InputSlot, Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};
use crate::outside::{Outside, OutsideFiles};
use crate::pipeline::{Sweep, SweepPoint};
use crate::spec::{Files, load};

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default)]
    seed: i64,
    #[serde(default)]
    lr: f64,
    #[serde(default)]
    code: Vec<String>,
    #[serde(default)]
    variables: Vec<String>,
}

/// A kind that looks outside the pipeline.
struct Script;

impl Kind for Script {
    type Params = Params;
    const INFO: KindInfo = KindInfo {
        name: "script",
        version: 1,
        summary: "For tests.",
        inputs: &[InputSlot { name: "*", accepts: &["*"], many: true, required: false, summary: "" }],
    };

    fn complete(mut params: Params, outside: &Outside<'_>) -> Result<(Params, OutsideFiles), Vec<ParamIssue>> {
        let mut files = OutsideFiles::new();
        for (index, path) in params.code.iter_mut().enumerate() {
            let place = format!("code[{index}]");
            let found = outside.read(&place, path).map_err(|problem| vec![ParamIssue::new(&place, problem)])?;
            let digests = found.iter().map(|(path, file)| format!("{path} {}", file.digest));
            *path = digests.collect::<Vec<_>>().join(" ");
            files.extend(found);
        }
        for name in &mut params.variables {
            let value = outside.variable(name).map_err(|problem| vec![ParamIssue::new("variables", problem)])?;
            *name = format!("{name}={value:?}");
        }
        Ok((params, files))
    }

    fn run(_: &Params, _: &StageContext<'_>) -> Result<Summary, StageError> {
        Ok(Summary::default())
    }
}

fn registry() -> Registry {
    Registry::new().with::<Script>()
}

const PIPELINE: &str = r#"
base = "base.toml"
[axes]
seed = { range = [0, 70] }
[stage.a]
uses = "script"
matrix = ["seed"]
retries = 2
timeout = "90s"
resources = { threads = 3, gpus = 1, time = "2h" }
params = { seed = "${seed}", code = ["run.py", "lib"], variables = ["MODE"] }
[stage.b]
uses = "script"
inputs = { all = { from = "a", over = ["seed"] }, first = "a[seed=0]" }
with = ["shared"]
[profile.quick.set]
"axes.seed" = { range = [0, 65] }
[sweep.rate.stage.b.params]
lr = { values = [0.5, 2.0] }
"#;

/// Everything that a pipeline is read from.
#[derive(Clone, Default)]
struct World {
    files: RefCell<BTreeMap<String, String>>,
    variables: RefCell<BTreeMap<String, String>>,
}

impl World {
    fn new() -> Self {
        let world = Self::default();
        world.write("p.toml", PIPELINE);
        world.write("base.toml", "[pipeline]\nname = \"kept\"\n[params.shared]\nlr = 0.25\n");
        world.write("run.py", "print(1)");
        world.write("lib/one.py", "1");
        world.write("lib/two.py", "2");
        world
    }

    fn write(&self, path: &str, text: &str) {
        self.files.borrow_mut().insert(path.to_owned(), text.to_owned());
    }

    fn replace(&self, path: &str, from: &str, to: &str) {
        let text = self.files.borrow()[path].replacen(from, to, 1);
        self.write(path, &text);
    }

    fn set(&self, name: &str, value: &str) {
        self.variables.borrow_mut().insert(name.to_owned(), value.to_owned());
    }
}

impl Files for World {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.files.borrow().get(path.to_str().unwrap()).cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn read_bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read(path).map(String::into_bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let files = self.files.borrow();
        let folder = format!("{}/", path.display());
        let names: Vec<_> = files.keys().filter_map(|file| Some(file.strip_prefix(&folder)?.to_owned())).collect();
        match names.is_empty() {
            true if files.contains_key(path.to_str().unwrap()) => Err(io::ErrorKind::NotADirectory.into()),
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(names),
        }
    }

    fn variable(&self, name: &str) -> Result<String, VarError> {
        self.variables.borrow().get(name).cloned().ok_or(VarError::NotPresent)
    }
}

/// How the pipeline is asked for.
#[derive(Clone, Default)]
struct Asked {
    profile: Option<String>,
    set: Vec<String>,
    sweep: Option<String>,
}

/// Everything there is to know of a pipeline, or of what is wrong with it.
fn told(result: Result<&Pipeline, &Report>) -> String {
    let pipeline = match result {
        Ok(pipeline) => pipeline,
        Err(report) => return report.to_string(),
    };
    let Pipeline { name, description, expected_time, sources, instances, sweep, outside } = pipeline;
    let mut text = format!("{name} {description} {expected_time:?} {sources:?}\n");
    let files: Vec<_> = outside.files.iter().map(|(path, file)| (path, file.digest)).collect();
    text += &format!("{files:?} {:?}\n", outside.variables);
    if let Some(Sweep { name, keys, points }) = sweep {
        text += &format!("{name} {keys:?}\n");
        for SweepPoint { name, values } in points {
            text += &format!("{name} {:?}\n", values.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
    }
    for instance in instances {
        let files: Vec<_> = instance.files.iter().map(|(place, file)| (place, file.digest, &file.bytes)).collect();
        let (kind, params) = (instance.kind.info().name, &instance.params);
        text += &format!("{} {kind} {params:?} {:?} {files:?} ", instance.id, instance.inputs);
        text += &format!("{:?} {:?}\n", instance.resources, instance.policy);
    }
    text
}

struct Bench {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        Self { dir, cache }
    }

    /// Loads as program `program`, keeps what was loaded, compares it with what the texts say, and returns whether it
    /// was known.
    fn load_as(&self, program: &str, world: &World, asked: &Asked) -> bool {
        let Asked { profile, set, sweep } = asked.clone();
        let options = LoadOptions { profile, set, sweep, files: world };
        let keeper = Keeper { cache: self.dir.path(), program: Some(program) };
        let loaded = load_kept(Path::new("p.toml"), &options, &registry(), &keeper);
        let expected = load(Path::new("p.toml"), &options, &registry());
        let (found, expected) = (told(loaded.as_ref().map(|loaded| &loaded.pipeline)), told(expected.as_ref()));
        let differing = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
        assert_eq!((found.lines().count(), differing), (expected.lines().count(), None));
        loaded.is_ok_and(|loaded| {
            loaded.keep(&self.cache);
            loaded.new.is_none()
        })
    }

    fn load(&self, world: &World) -> bool {
        self.load_as("program", world, &Asked::default())
    }

    fn file(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.dir.path().join("index")).unwrap();
        let file = entries.next().unwrap().unwrap().path();
        assert!(entries.next().is_none());
        file
    }
}

#[test]
fn equal_texts_are_known_the_second_time() {
    let (bench, world) = (Bench::new(), World::new());
    assert!(!bench.load(&world));
    assert!(bench.load(&world));
}

#[test]
fn an_edit_of_anything_that_is_read_is_seen() {
    type Edit = fn(&World);
    let edits: [(&str, Edit); 11] = [
        ("the file", |world| world.replace("p.toml", "retries = 2", "retries = 3")),
        ("a comment", |world| world.replace("p.toml", "\n[axes]", "\n# new\n[axes]")),
        ("its base", |world| world.replace("base.toml", "0.25", "0.75")),
        ("a new base of the base", |world| {
            world.write("deep.toml", "[pipeline]\ndescription = \"x\"\n");
            world.replace("base.toml", "[pipeline]", "base = \"deep.toml\"\n[pipeline]");
        }),
        ("a file of the code", |world| world.write("run.py", "print(2)")),
        ("a file in a folder of the code", |world| world.write("lib/two.py", "3")),
        ("a new file in a folder of the code", |world| world.write("lib/six.py", "6")),
        ("a file of the code that is gone", |world| drop(world.files.borrow_mut().remove("lib/two.py"))),
        ("a file of the code that became a folder", |world| {
            world.files.borrow_mut().remove("run.py");
            world.write("run.py/main", "print(1)");
        }),
        ("a variable that is set", |world| world.set("MODE", "fast")),
        ("a mistake", |world| world.replace("p.toml", "retries", "retires")),
    ];
    for (what, edit) in edits {
        let (bench, world) = (Bench::new(), World::new());
        bench.load(&world);
        assert!(bench.load(&world));
        edit(&world);
        assert!(!bench.load(&world), "{what}");
    }
}

#[test]
fn a_changed_or_removed_variable_is_seen() {
    let (bench, world) = (Bench::new(), World::new());
    world.set("MODE", "fast");
    bench.load(&world);
    world.set("MODE", "slow");
    assert!(!bench.load(&world));
    assert!(bench.load(&world));
    world.set("OTHER", "nobody asks for it");
    assert!(bench.load(&world));
    world.variables.borrow_mut().remove("MODE");
    assert!(!bench.load(&world));
}

#[test]
fn each_way_to_ask_has_its_own_pipeline() {
    let asked = |profile: Option<&str>, set: &[&str], sweep: Option<&str>| Asked {
        profile: profile.map(str::to_owned),
        set: set.iter().map(|argument| (*argument).to_owned()).collect(),
        sweep: sweep.map(str::to_owned),
    };
    let ways = [
        asked(None, &[], None),
        asked(Some("quick"), &[], None),
        asked(None, &["params.shared.lr=1.0"], None),
        asked(None, &["params.shared.lr=-0.0"], None),
        asked(None, &["params.shared.lr=1.0", "stage.a.retries=1"], None),
        asked(None, &["stage.a.retries=1", "params.shared.lr=1.0"], None),
        asked(None, &[], Some("rate")),
        asked(Some("quick"), &["params.shared.lr=1.0"], Some("rate")),
    ];
    let (bench, world) = (Bench::new(), World::new());
    for is_known in [false, true] {
        for (number, way) in ways.iter().enumerate() {
            assert_eq!(bench.load_as("program", &world, way), is_known, "way {number}");
        }
    }
}

#[test]
fn another_program_knows_nothing() {
    let (bench, world) = (Bench::new(), World::new());
    assert!(!bench.load_as("program 1", &world, &Asked::default()));
    assert!(!bench.load_as("program 2", &world, &Asked::default()));
    assert!(bench.load_as("program 1", &world, &Asked::default()));
}

#[test]
fn an_index_under_the_name_of_another_is_not_believed() {
    let (bench, world) = (Bench::new(), World::new());
    bench.load_as("program 1", &world, &Asked::default());
    let first = bench.file();
    fs::rename(&first, bench.dir.path().join("moved")).unwrap();
    bench.load_as("program 2", &world, &Asked::default());
    fs::rename(bench.dir.path().join("moved"), bench.file()).unwrap();
    assert!(!bench.load_as("program 2", &world, &Asked::default()));
}

#[test]
fn a_damaged_index_is_a_miss() {
    let (bench, world) = (Bench::new(), World::new());
    bench.load(&world);
    let file = bench.file();
    let good = fs::read(&file).unwrap();
    for step in 0..40 {
        let position = good.len() * step / 40;
        let mut flipped = good.clone();
        flipped[position] ^= 1 << (step % 8);
        for damaged in [&flipped[..], &good[..position]] {
            fs::write(&file, damaged).unwrap();
            assert!(!bench.load(&world), "byte {position}");
        }
    }
    assert!(bench.load(&world));
}

#[test]
fn a_body_of_another_shape_is_a_miss_and_never_a_panic() {
    let (bench, world) = (Bench::new(), World::new());
    bench.load(&world);
    let file = bench.file();
    let name = file.file_name().unwrap().to_str().unwrap();
    let body = read_index(bench.dir.path(), name, FORMAT).unwrap();
    // Sealed anew each time, so that the seal does not give it away. What does not change the meaning may pass.
    let options = LoadOptions { files: &world, ..LoadOptions::default() };
    let keeper = Keeper { cache: bench.dir.path(), program: Some("program") };
    for step in 0..400 {
        let position = body.len() * step / 400;
        let mut flipped = body.clone();
        flipped[position] ^= 1 << (step % 8);
        for changed in [&flipped[..], &body[..position]] {
            bench.cache.write_index(name, FORMAT, changed).unwrap();
            let _ = load_kept(Path::new("p.toml"), &options, &registry(), &keeper);
        }
    }
}

#[test]
fn a_small_pipeline_is_read_each_time_and_one_without_a_program_too() {
    let (bench, world) = (Bench::new(), World::new());
    let few = Asked { set: vec!["axes.seed=[0, 1]".to_owned()], ..Asked::default() };
    bench.load_as("program", &world, &few);
    let options = LoadOptions { files: &world, ..LoadOptions::default() };
    let keeper = Keeper { cache: bench.dir.path(), program: None };
    let loaded =
        load_kept(Path::new("p.toml"), &options, &registry(), &keeper).unwrap_or_else(|report| panic!("{report}"));
    loaded.keep(&bench.cache);
    assert_eq!(fs::read_dir(bench.dir.path().join("index")).unwrap().count(), 0);
}

#[test]
fn many_may_keep_one_pipeline_at_once() {
    let (bench, world) = (Bench::new(), World::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let world = world.clone();
            let bench = &bench;
            scope.spawn(move || {
                for _ in 0..10 {
                    bench.load(&world);
                }
            });
        }
    });
    assert!(bench.load(&world));
    assert_eq!(fs::read_dir(bench.dir.path().join("tmp")).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_order_of_edits_makes_a_kept_pipeline_stale(steps in prop::collection::vec((0..9_u8, 0..3_u8), 1..12)) {
        let (bench, world) = (Bench::new(), World::new());
        let mut asked = Asked::default();
        for (what, value) in steps {
            match what {
                0 => world.write("run.py", &format!("print({value})")),
                1 => world.write("lib/one.py", &value.to_string()),
                2 => world.write(&format!("lib/{value}.py"), ""),
                3 => drop(world.files.borrow_mut().remove(&format!("lib/{value}.py"))),
                4 => world.set("MODE", &value.to_string()),
                5 => world.write("base.toml", &format!("[params.shared]\nlr = {value}.5\n")),
                6 => world.write("p.toml", &PIPELINE.replace("retries = 2", &format!("retries = {value}"))),
                7 => asked.set = (0..value).map(|number| format!("params.shared.lr={number}.0")).collect(),
                _ => asked.profile = (value > 0).then(|| "quick".to_owned()),
            }
            // Compares with what the texts say.
            bench.load_as("program", &world, &asked);
        }
    }
}
