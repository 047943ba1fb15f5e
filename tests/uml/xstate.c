/* Before the C library of a user-mode-linux kernel: lets it run on processors whose registers are larger than it knows.
 *
 * The guest sets the registers of its processes by ptrace(PTRACE_SETREGSET, NT_X86_XSTATE) from a buffer that held all of
 * them when it was written. Since then there are larger ones (the tiles of AMX), and Linux takes all or nothing: EFAULT, on
 * which the guest panics. What is missing at the end belongs to registers that the header of the buffer says are unused,
 * so zeros will do.
 *
 *     cc -shared -fPIC -o xstate.so xstate.c && LD_PRELOAD=./xstate.so linux.uml ...
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define WHOLE_BYTES 65536

typedef long (*ptrace_t)(enum __ptrace_request, pid_t, void *, void *);

static ptrace_t real;
static char whole[WHOLE_BYTES];
static size_t whole_bytes;

__attribute__((constructor)) static void find(void) { real = (ptrace_t)dlsym(RTLD_NEXT, "ptrace"); }

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE)
        return real(request, pid, address, data);
    struct iovec *part = data;
    if (whole_bytes == 0) {
        struct iovec all = {whole, sizeof whole};
        if (real(PTRACE_GETREGSET, pid, address, &all) == 0)
            whole_bytes = all.iov_len;
    }
    if (part->iov_len >= whole_bytes)
        return real(request, pid, address, data);
    memset(whole + part->iov_len, 0, whole_bytes - part->iov_len);
    memcpy(whole, part->iov_base, part->iov_len);
    struct iovec all = {whole, whole_bytes};
    return real(request, pid, address, &all);
}
