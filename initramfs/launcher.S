# SPDX-License-Identifier: Apache-2.0
#
# bin/troth of the runtime: starts the packed interpreter through the packed
# loader, so it runs in a root with another libc, with none, without Python.
#
# Its own arguments follow the fixed ones. The environment is empty: nothing a
# caller sets (LD_*, PYTHON*, locale) reaches the interpreter. No libc, no
# writable data, no relocations. The builder replaces the words between at
# signs; see image/launcher.py.

        .section .rodata
loader:     .asciz "@LOADER@"
no_cache:   .asciz "--inhibit-cache"
lib_option: .asciz "--library-path"
libraries:  .asciz "@LIBRARIES@"
python:     .asciz "@PYTHON@"
flags:      .asciz "-ISB"
script:     .asciz "@SCRIPT@"
failed:     .ascii "troth: the runtime cannot be started\n"
        .equ failed_bytes, . - failed

        .text
        .globl _start
_start:
        movq    (%rsp), %rcx            # argc; 0 is possible
        leaq    16(%rsp), %rsi          # the caller's argv[1]
        testq   %rcx, %rcx
        jz      1f
        decq    %rcx
1:      leaq    8(,%rcx,8), %rax        # the caller's words and the final NULL
        addq    $56, %rax               # seven words of ours
        subq    %rax, %rsp
        movq    %rsp, %rdi
        leaq    loader(%rip), %rax
        stosq
        leaq    no_cache(%rip), %rax
        stosq
        leaq    lib_option(%rip), %rax
        stosq
        leaq    libraries(%rip), %rax
        stosq
        leaq    python(%rip), %rax
        stosq
        leaq    flags(%rip), %rax
        stosq
        leaq    script(%rip), %rax
        stosq
        cld
        rep movsq
        xorl    %eax, %eax
        stosq                           # ends argv, and is the empty environment
        leaq    -8(%rdi), %rdx
        movq    %rsp, %rsi
        leaq    loader(%rip), %rdi
        movl    $59, %eax               # execve
        syscall
        movl    $1, %eax                # write: only reached when execve failed
        movl    $2, %edi
        leaq    failed(%rip), %rsi
        movl    $failed_bytes, %edx
        syscall
        movl    $60, %eax               # exit
        movl    $127, %edi
        syscall

        .section .note.GNU-stack, "", @progbits
