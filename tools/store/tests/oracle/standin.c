/* What Debian's xenstored and oxenstored of Xen 4.17 need of libxenctrl, libxenevtchn and libxengnttab, by LD_PRELOAD, on a machine
   without Xen. All is in the folder $STANDIN:

   domains   a byte for each domain: 0 none, 1 runs, 2 has shut down, 3 is dying
   ring-N    the ring page of domain N
   events    FIFO of u32 ports: 1000 + N is domain N's ring, 3 is VIRQ_DOM_EXC
   xsd_port  dom0's port */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static const char *in(const char *name)
{
	static char paths[4][512];
	static int next;
	char *path = paths[next++ & 3];
	snprintf(path, sizeof paths[0], "%s/%s", getenv("STANDIN"), name);
	return path;
}

static int next_domain(unsigned first, unsigned *domain)
{
	static unsigned char *states;
	if (!states) {
		int file = syscall(SYS_open, in("domains"), O_RDWR);
		states = mmap(0, 32768, PROT_READ, MAP_SHARED, file, 0);
	}
	for (*domain = first; *domain < 32768; ++*domain)
		if (states[*domain])
			return states[*domain];
	return 0;
}

/* xc_dominfo_t of xenctrl.h, as far as it is read. */
struct info {
	uint32_t domid, ssidref;
	unsigned dying : 1, crashed : 1, shutdown : 1;
};

int xc_domain_getinfo(void *h, uint32_t first, unsigned max, struct info *info)
{
	unsigned domain;
	int state = next_domain(first, &domain);
	if (!state)
		return 0;
	memset(info, 0, sizeof *info);
	info->domid = domain;
	info->shutdown = state == 2;
	info->dying = state == 3;
	return 1;
}

/* struct xen_domctl_getdomaininfo: domain, pad, flags. */
int xc_domain_getinfolist(void *h, uint32_t first, unsigned max, char *info)
{
	unsigned domain;
	int state = next_domain(first, &domain);
	if (!state)
		return 0;
	memset(info, 0, 96);
	*(uint16_t *)info = domain;
	*(uint32_t *)(info + 4) = state == 2 ? 4 : state == 3 ? 1 : 0;
	return 1;
}

void *xc_interface_open(void *a, void *b, unsigned c) { return (void *)8; }
int xc_interface_close(void *h) { return 0; }

static int events = -1;
void *xenevtchn_open(void *l, unsigned f)
{
	events = syscall(SYS_open, in("events"), O_RDWR | O_NONBLOCK);
	return (void *)16;
}
void *xenevtchn_fdopen(void *l, int fd, unsigned f) { events = fd; return (void *)16; }
int xenevtchn_close(void *h) { return 0; }
int xenevtchn_fd(void *h) { return events; }
int xenevtchn_notify(void *h, uint32_t port) { return 0; }
int xenevtchn_bind_interdomain(void *h, uint32_t d, uint32_t port) { return 1000 + d; }
int xenevtchn_bind_virq(void *h, unsigned virq) { return 3; }
int xenevtchn_unbind(void *h, uint32_t port) { return 0; }
int xenevtchn_pending(void *h) { uint32_t port; return read(events, &port, 4) == 4 ? (int)port : -1; }
int xenevtchn_unmask(void *h, uint32_t port) { return 0; }

static void *page(uint32_t domain)
{
	char name[32];
	snprintf(name, sizeof name, "ring-%u", domain);
	int file = syscall(SYS_open, in(name), O_RDWR | O_CREAT, 0600);
	ftruncate(file, 4096);
	void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	return page;
}
void *xengnttab_open(void *l, unsigned f) { return (void *)24; }
int xengnttab_close(void *h) { return 0; }
int xengnttab_set_max_grants(void *h, uint32_t n) { return 0; }
void *xengnttab_map_grant_ref(void *h, uint32_t d, uint32_t r, int p) { return page(d); }
int xengnttab_unmap(void *h, void *a, uint32_t n) { return munmap(a, 4096); }
void *xc_map_foreign_range(void *h, uint32_t d, int size, int p, unsigned long gfn) { return page(d); }

/* /proc/xen, and oxenstored's folder, which is compiled in. */
static const char *moved(const char *path)
{
	if (strstr(path, "xsd_port"))
		return in("xsd_port");
	if (strstr(path, "xsd_kva"))
		return in("ring-0");
	if (!strncmp(path, "/var/run/", 9))
		path += 4;
	return strncmp(path, "/run/xenstored", 14) ? path : in(path + 1);
}
int open(const char *path, int flags, ...)
{
	va_list list;
	va_start(list, flags);
	int mode = va_arg(list, int);
	va_end(list);
	return syscall(SYS_open, moved(path), flags, mode);
}
int open64(const char *path, int flags, ...)
{
	va_list list;
	va_start(list, flags);
	int mode = va_arg(list, int);
	va_end(list);
	return syscall(SYS_open, moved(path), flags, mode);
}
int unlink(const char *path) { return syscall(SYS_unlink, moved(path)); }
int mkdir(const char *path, mode_t mode) { return syscall(SYS_mkdir, moved(path), mode); }
int access(const char *path, int mode) { return syscall(SYS_access, moved(path), mode); }
int bind(int s, const struct sockaddr *address, socklen_t length)
{
	struct sockaddr_un here = { .sun_family = AF_UNIX };
	if (address->sa_family == AF_UNIX) {
		const char *path = moved(((const struct sockaddr_un *)address)->sun_path);
		snprintf(here.sun_path, sizeof here.sun_path, "%s", path);
		address = (void *)&here;
		length = sizeof here;
	}
	return syscall(SYS_bind, s, address, length);
}
int setrlimit(int r, const void *l) { return 0; }
int setrlimit64(int r, const void *l) { return 0; }
