// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * A kernel module for one test: gives the kernel's own configfs-tsm a provider
 * without SEV-SNP. Its reports are a pattern that nobody signed. Everything else
 * that a program sees, names, modes, errors, generations, is the genuine core's.
 * Written after the kernel's sev-guest driver, as far as the core calls it.
 */
#include <linux/module.h>
#include <linux/mm.h>
#include <linux/string.h>
#include <linux/tsm.h>
#include <linux/unaligned.h>

#define REPORT_BYTES 1184
#define TABLE "no table, but the word SEV-VCEK"

static int report_new(struct tsm_report *report, void *data)
{
	struct tsm_desc *asked = &report->desc;
	u8 *made, *table;

	if (asked->inblob_len != 64)
		return -EINVAL;
	made = kvmalloc(REPORT_BYTES, GFP_KERNEL);
	table = kvmemdup(TABLE, sizeof(TABLE), GFP_KERNEL);
	if (!made || !table) {
		kvfree(made);
		kvfree(table);
		return -ENOMEM;
	}
	for (int at = 0; at < REPORT_BYTES; at++)
		made[at] = at % 251;
	put_unaligned_le32(3, made);
	put_unaligned_le32(asked->privlevel, made + 0x30);
	put_unaligned_le32(1, made + 0x34);
	put_unaligned_le32(0, made + 0x48);
	memcpy(made + 0x50, asked->inblob, 64);
	report->outblob = made;
	report->outblob_len = REPORT_BYTES;
	report->auxblob = table;
	report->auxblob_len = sizeof(TABLE);
	return 0;
}

static bool visible(int number)
{
	return number == TSM_REPORT_GENERATION || number == TSM_REPORT_PROVIDER ||
	       number == TSM_REPORT_PRIVLEVEL || number == TSM_REPORT_PRIVLEVEL_FLOOR;
}

static bool bin_visible(int number)
{
	return number == TSM_REPORT_INBLOB || number == TSM_REPORT_OUTBLOB ||
	       number == TSM_REPORT_AUXBLOB;
}

static const struct tsm_ops ops = {
	.name = "sev_guest",
	.report_new = report_new,
	.report_attr_visible = visible,
	.report_bin_attr_visible = bin_visible,
};

static int __init begin(void)
{
	return tsm_register(&ops, NULL);
}

static void __exit end(void)
{
	tsm_unregister(&ops);
}

module_init(begin);
module_exit(end);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("reports of a pattern, for a test");
