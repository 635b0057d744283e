//! Which modules the lab loads, and in which order.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::packages::Unpacked;

/// KVM for the emulated processor, the results disk, the network of `--serve`.
const WANTED: &[&str] = &["kvm_amd", "virtio_pci", "virtio_blk", "virtio_net"];

/// The modules to load, dependencies first. Packages hold no `modules.dep` (it is made when they are
/// installed), so the dependencies come from the modules themselves.
pub(super) fn resolve(kernel: &Unpacked) -> Result<Vec<String>> {
    let mut order = Vec::new();
    for name in WANTED {
        add(name, &kernel.modules, &kernel.builtin, &mut order)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    modules: &BTreeMap<String, Vec<u8>>,
    builtin: &[String],
    order: &mut Vec<String>,
) -> Result<()> {
    if order.iter().any(|loaded| loaded == name) || builtin.iter().any(|b| b == name) {
        return Ok(());
    }
    let module = modules.get(name).with_context(|| format!("the kernel package holds no module {name}"))?;
    for dependency in dependencies(module) {
        add(&dependency, modules, builtin, order)?;
    }
    order.push(name.to_owned());
    Ok(())
}

/// The value of `depends=` among the NUL-terminated strings of the `.modinfo` section. Modules have
/// exactly one, and no other section of a module holds a string of this form.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(depends: &str) -> Vec<u8> {
        format!("ELF\0license=GPL\0depends={depends}\0name=x\0").into_bytes()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let modules = BTreeMap::from([
            ("a".to_owned(), module("b,c-d")),
            ("b".to_owned(), module("c_d")),
            ("c_d".to_owned(), module("built")),
        ]);
        let mut order = Vec::new();
        add("a", &modules, &["built".to_owned()], &mut order).unwrap();
        assert_eq!(order, ["c_d", "b", "a"]);
    }

    #[test]
    fn a_missing_module_is_an_error() {
        assert!(add("x", &BTreeMap::new(), &[], &mut Vec::new()).is_err());
    }
}
