use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::compiler::Compiler;
use crate::engine::{self, Engine as Guests};
use crate::grants::AllowedImports;
use crate::load::{Component as Loaded, tests::Scratch};
use crate::testing;

fn load(engine: &Guests, cache: &Cache, wasm: &[u8]) -> bool {
    Loaded::from_bytes(engine, "orders.wasm", wasm, AllowedImports::default(), &Compiler::here(), Some(cache))
        .unwrap()
        .from_cache()
}

fn files(cache: &Cache) -> Vec<PathBuf> {
    fs::read_dir(&cache.directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_component_is_compiled_once_and_a_change_of_component_or_settings_compiles_again() {
    let scratch = Scratch::new("cache-once");
    let cache = Cache::new(scratch.path().join("below/compiled"));
    let engine = testing::engine();
    let wasm = testing::obedient();
    assert!(!load(&engine, &cache, &wasm));
    assert!(load(&engine, &cache, &wasm));
    assert!(load(&testing::engine(), &cache, &wasm), "another process with the same settings");
    assert!(!load(&engine, &cache, &testing::waiting()), "another component");
    assert_eq!(files(&cache).len(), 2);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&cache.directory), 0o700);
    assert!(files(&cache).iter().all(|file| mode(file) == 0o600));

    let other = Engine::new(wasmtime::Config::new().epoch_interruption(false)).unwrap();
    assert_ne!(key(&other, &wasm), key(engine.wasmtime(), &wasm), "other settings");
}

#[test]
fn the_cache_key_does_not_depend_on_the_instance_pool() {
    let wasm = testing::obedient();
    let here = testing::engine();
    let larger = testing::engine_of(64);
    let compiling = engine::for_compiling().unwrap();
    assert_eq!(key(larger.wasmtime(), &wasm), key(here.wasmtime(), &wasm));
    assert_eq!(key(&compiling, &wasm), key(here.wasmtime(), &wasm));
}

#[test]
fn a_corrupt_or_unsafe_file_is_replaced() {
    let scratch = Scratch::new("cache-spoilt");
    let cache = Cache::new(scratch.path().join("compiled"));
    let engine = testing::engine();
    let wasm = testing::obedient();
    let corruptions: [fn(&Path); 4] = [
        |file| {
            let code = fs::read(file).unwrap();
            fs::write(file, &code[..code.len() / 2]).unwrap();
        },
        |file| {
            let mut code = fs::read(file).unwrap();
            let middle = code.len() / 2;
            code[middle] ^= 1;
            fs::write(file, code).unwrap();
        },
        |file| chmod(file, 0o644),
        |file| {
            let elsewhere = file.with_extension("elsewhere");
            fs::rename(file, &elsewhere).unwrap();
            std::os::unix::fs::symlink(elsewhere, file).unwrap();
        },
    ];
    for corrupt in corruptions {
        load(&engine, &cache, &wasm);
        let file = files(&cache).into_iter().find(|file| file.extension().is_some_and(|e| e == EXTENSION));
        corrupt(&file.unwrap());
        assert!(!load(&engine, &cache, &wasm), "compiled again");
        assert!(load(&engine, &cache, &wasm), "and cached again");
    }
}

#[test]
fn a_file_with_a_valid_name_but_without_valid_code_is_not_run() {
    let scratch = Scratch::new("cache-foreign");
    let cache = Cache::new(scratch.path().join("compiled"));
    let engine = testing::engine();
    let wasm = testing::obedient();
    cache.prepare_directory().unwrap();
    let content: &[u8] = b"not code at all";
    cache.write(&key(engine.wasmtime(), &wasm), &digest_of(content).unwrap(), content).unwrap();
    assert!(!load(&engine, &cache, &wasm));
    assert!(load(&engine, &cache, &wasm));
}

#[test]
fn a_directory_with_access_for_others_is_not_used() {
    let scratch = Scratch::new("cache-open");
    let cache = Cache::new(scratch.path().join("compiled"));
    let engine = testing::engine();
    let wasm = testing::obedient();
    assert!(!load(&engine, &cache, &wasm));
    chmod(&cache.directory, 0o755);
    assert!(!load(&engine, &cache, &wasm));
    assert_eq!(
        cache.prepare_directory(),
        Err("other users have access (mode 755); create it with mode 0700 for this user".to_owned())
    );
    chmod(&cache.directory, 0o700);
    assert!(load(&engine, &cache, &wasm));

    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(
        !load(&engine, &Cache::new(file), &wasm),
        "a path that is not a directory only disables the cache"
    );
}
