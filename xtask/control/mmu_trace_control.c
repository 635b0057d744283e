// SPDX-License-Identifier: GPL-2.0
/*
 * The lab's positive control: a change_pte that finds something to change.
 *
 * KVM tears a mapping down in invalidate_range_start, so that the change_pte
 * call inside the same bracket never finds it. With this module KVM's unmap
 * does nothing for a single page while the current task is inside KSM's
 * try_to_merge_one_page or inside wp_page_copy, the copy on write: exactly
 * where change_pte follows. Everything else of the bracket stays: vCPUs that
 * fault meanwhile still retry. The calls of KVM's unmap stay as well: they
 * return right behind its fentry instruction, so that every tracer sees them.
 *
 * For the lab only. On KVM's TDP MMU the kernel stops (BUG) if a guest touches
 * a page between the two steps of its merge.
 */
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/version.h>

#define IN_MERGE 0
#define IN_COPY 1

static unsigned long suppressed;
module_param(suppressed, ulong, 0444);
MODULE_PARM_DESC(suppressed, "calls of KVM's unmap that did nothing");

/* Tasks inside, by kind. More at a time than the lab ever has. */
static struct task_struct *inside[2][64];

static void enter(int kind)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(inside[kind]); i++)
		if (!cmpxchg(&inside[kind][i], NULL, current))
			return;
}

static bool is_inside(int kind)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(inside[kind]); i++)
		if (READ_ONCE(inside[kind][i]) == current)
			return true;
	return false;
}

static void leave(int kind)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(inside[kind]); i++)
		if (cmpxchg(&inside[kind][i], current, NULL) == current)
			return;
}

static int merge_entered(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	enter(IN_MERGE);
	return 0;
}

static int merge_left(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	leave(IN_MERGE);
	return 0;
}

static int copy_entered(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	enter(IN_COPY);
	return 0;
}

static int copy_left(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	leave(IN_COPY);
	return 0;
}

static struct kretprobe merge = {
	.kp.symbol_name = "try_to_merge_one_page",
	.entry_handler = merge_entered,
	.handler = merge_left,
	.maxactive = 64,
};

static struct kretprobe copy = {
	.kp.symbol_name = "wp_page_copy",
	.entry_handler = copy_entered,
	.handler = copy_left,
	.maxactive = 64,
};

/* What KVM's unmap is replaced with: nothing was there to unmap. */
static noinline unsigned long nothing_unmapped(void)
{
	return 0;
}

static bool is_one_page(struct pt_regs *regs)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
	/* bool kvm_unmap_gfn_range(struct kvm *, struct kvm_gfn_range *) */
	struct kvm_gfn_range *range = (void *)regs->si;

	return range->end - range->start == 1;
#else
	/* int kvm_unmap_hva_range(struct kvm *, unsigned long start, unsigned long end, unsigned flags) */
	return regs->dx - regs->si == PAGE_SIZE;
#endif
}

static int unmap_entered(struct kprobe *probe, struct pt_regs *regs)
{
	if (!is_one_page(regs) || !(is_inside(IN_MERGE) || is_inside(IN_COPY)))
		return 0;
	WRITE_ONCE(suppressed, suppressed + 1);
	instruction_pointer_set(regs, (unsigned long)nothing_unmapped);
	/* Go on there, and not behind the probe. */
	return 1;
}

/* With one of these a probe is not optimised: a jump cannot go elsewhere. */
static void unmap_not_optimised(struct kprobe *probe, struct pt_regs *regs,
				unsigned long flags)
{
}

/* Finds the fentry instruction, wherever this kernel puts it. */
static struct kprobe entry = {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
	.symbol_name = "kvm_unmap_gfn_range",
#else
	.symbol_name = "kvm_unmap_hva_range",
#endif
};

static struct kprobe unmap = {
	.pre_handler = unmap_entered,
	.post_handler = unmap_not_optimised,
};

static int __init control_init(void)
{
	int ret = register_kprobe(&entry);

	if (ret)
		return ret;
	unmap.addr = entry.addr + MCOUNT_INSN_SIZE;
	unregister_kprobe(&entry);
	ret = register_kretprobe(&merge);
	if (ret)
		return ret;
	ret = register_kretprobe(&copy);
	if (ret)
		goto no_copy;
	ret = register_kprobe(&unmap);
	if (ret)
		goto no_unmap;
	return 0;

no_unmap:
	unregister_kretprobe(&copy);
no_copy:
	unregister_kretprobe(&merge);
	return ret;
}

static void __exit control_exit(void)
{
	unregister_kprobe(&unmap);
	unregister_kretprobe(&copy);
	unregister_kretprobe(&merge);
}

module_init(control_init);
module_exit(control_exit);
MODULE_DESCRIPTION("Restores a working change_pte for mmu-trace's lab");
MODULE_LICENSE("GPL");
