# The do-nothing PVH guest.
#
# Xen enters a PVH guest in 32-bit protected mode with paging off and flat segments (docs/misc/pvh.pandoc, "PVH CPU
# state"), and takes hypercalls from there: number in eax, arguments in ebx, ecx (public/arch-x86/xen-x86_32.h).
# VMMCALL is issued in place rather than through the hypercall page, because finding and filling that page would be a
# CPUID and a WRMSR exit more. It is AMD's instruction: on an Intel host this guest dies of an invalid opcode.

.equ XEN_ELFNOTE_PHYS32_ENTRY, 18     # public/elfnote.h
.equ HYPERVISOR_SCHED_OP, 29          # public/xen.h
.equ SCHEDOP_SHUTDOWN, 2              # public/sched.h
.equ SHUTDOWN_POWEROFF, 0             # public/sched.h

.section .note.Xen, "a", @note
    .balign 4
    .long 4                           # size of the name
    .long 4                           # size of the descriptor
    .long XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long entry

.section .text.entry, "ax", @progbits
.code32
.global entry
entry:
    movl $HYPERVISOR_SCHED_OP, %eax
    movl $SCHEDOP_SHUTDOWN, %ebx
    movl $shutdown, %ecx
    vmmcall
1:  hlt                               # not reached: SCHEDOP_shutdown does not return
    jmp 1b

    .balign 4
shutdown:                             # struct sched_shutdown
    .long SHUTDOWN_POWEROFF
.code64
