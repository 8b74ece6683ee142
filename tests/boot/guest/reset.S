/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ROM of 64 KiB that puts the processor into the state of a VMSA and jumps to
 * its RIP, as an SNP host does without any code in the guest. boot.igvm_native
 * sets the symbols in capitals. It must change nothing in memory.
 */
	.code16
	.text
	.globl	begin
begin:	cli
	data32 lgdt %cs:own_gdtr - begin
	movl	$CR0, %eax
	movl	%eax, %cr0
	data32 ljmp $8, $protected
	.code32
protected:
	movl	$CR3, %eax
	movl	%eax, %cr3
	movl	$CR4, %eax
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx	/* MSR EFER */
	movl	$EFER, %eax
	movl	$0, %edx
	wrmsr
	lgdt	%cs:gdtr
	lidt	%cs:idtr
	movl	$DS, %eax
	movl	%eax, %ds
	movl	$ES, %eax
	movl	%eax, %es
	movl	$SS, %eax
	movl	%eax, %ss
	movl	$FS, %eax
	movl	%eax, %fs
	movl	$GS, %eax
	movl	%eax, %gs
	movl	$RAX, %eax
	movl	$RBX, %ebx
	movl	$RCX, %ecx
	movl	$RDX, %edx
	movl	$RSI, %esi
	movl	$RDI, %edi
	movl	$RBP, %ebp
	movl	$RSP, %esp
	ljmp	$CS, $RIP

	.balign	8
own_gdt:
	.quad	0, 0x00cf9b000000ffff	/* flat 32-bit code */
own_gdtr:
	.word	15
	.long	own_gdt
gdtr:	.word	GDT_LIMIT
	.long	GDT_BASE
idtr:	.word	IDT_LIMIT
	.long	IDT_BASE

	.org	0xfff0			/* the reset vector */
	.code16
	jmp	begin
	.org	0x10000, 0
