//! Which modules the lab loads, and in which order.

use anyhow::Result;
use xtask::arch::Arch;

use crate::packages::Kernel;

/// KVM for the emulated processor, the results disk, the network of `--serve`. On arm64 KVM is built in.
pub(super) const fn wanted(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Amd64 => &["kvm_amd", "virtio_pci", "virtio_blk", "virtio_net"],
        Arch::Arm64 => &["virtio_pci", "virtio_blk", "virtio_net"],
    }
}

/// The modules to load, dependencies first, with their object files. Packages hold no `modules.dep`
/// (it is made when they are installed), so the dependencies come from the modules themselves.
pub(super) fn resolve(kernel: &Kernel, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut order = Vec::new();
    for name in wanted {
        add(name, &|name| kernel.module(name), &kernel.builtin, &mut order)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    module: &impl Fn(&str) -> Result<Vec<u8>>,
    builtin: &[String],
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    if order.iter().any(|(loaded, _)| loaded == name) || builtin.iter().any(|b| b == name) {
        return Ok(());
    }
    let object = module(name)?;
    for dependency in dependencies(&object) {
        add(&dependency, module, builtin, order)?;
    }
    order.push((name.to_owned(), object));
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
        let find = |name: &str| {
            Ok(match name {
                "a" => module("b,c-d"),
                "b" => module("c_d"),
                _ => module("built"),
            })
        };
        let mut order = Vec::new();
        add("a", &find, &["built".to_owned()], &mut order).unwrap();
        let names: Vec<&str> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["c_d", "b", "a"]);
    }

    #[test]
    fn a_missing_module_is_an_error() {
        let none = |name: &str| anyhow::bail!("no module {name}");
        assert!(add("x", &none, &[], &mut Vec::new()).is_err());
    }
}
