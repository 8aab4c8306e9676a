/*
 * Helpers of the filter-redirector qtests: a private network, a QEMU in it,
 * packets, and the stream of a redirector
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FILTER_REDIRECTOR_HELPERS_H
#define FILTER_REDIRECTOR_HELPERS_H

#include "libqtest.h"
#include "qobject/qdict.h"

/*
 * The test program enters a network namespace of its own, so that its TAPs
 * meet nobody else's, and QEMU inherits it.  A Rig is one QEMU and what hangs
 * on it.  Each netdev of a rig is a Port with two ends, both of which the test
 * holds, one packet a message:
 *
 *    outside (the network) <-> netdev <-> inside (the guest)
 *
 * The guest is a datagram socket behind a hub; the network of a TAP is a
 * packet socket on its interface, that of a wire another datagram socket.
 * What is sent outside is direction tx for the netdev's filters, and what is
 * sent inside is rx.
 *
 * Every wait ends with a failed assertion after WAIT_SECONDS.
 */
#define WAIT_SECONDS 30

#define PORTS_MAX 4
#define FDS_MAX 32

typedef struct Port {
    const char *id;
    char ifname[16];        /* TAP only */
    int outside;
    int inside;             /* -1: no guest, QEMU drops what it reads */
    int tap;                /* TAP_HELD only: another reference to its queue */
} Port;

typedef struct Rig {
    QTestState *qts;
    const char *machine;    /* "-M none" by default */
    GString *args;
    Port ports[PORTS_MAX];
    unsigned nports;
    int fds[FDS_MAX];       /* ours, closed at the end */
    unsigned nfds;
    int qemu_fds[FDS_MAX];  /* QEMU's, closed here once it runs */
    unsigned nqemu_fds;
    char *dir;              /* for sockets with a name; NULL: there are none */
} Rig;

/* Bits of rig_tap(). */
#define TAP_GUEST   1       /* with an inside */
#define TAP_MQ      TAP_QUEUES(2)   /* not with TAP_GUEST */
#define TAP_HELD    4       /* the test keeps Port.tap open */
#define TAP_STUCK   8       /* a guest that takes no packets; no inside */
#define TAP_QUEUES_SHIFT 8
#define TAP_QUEUES_MAX 4
#define TAP_QUEUES(n) ((n) << TAP_QUEUES_SHIFT)

/**
 * sandbox_enter() - Go into a private network namespace
 * @argv: of main(); without the privilege the program is run once more, in a
 *        user namespace
 *
 * To be called first in main().  What goes wrong makes all cases skip.
 */
void sandbox_enter(char **argv);

/**
 * case_add() - Add a test case that needs the sandbox
 * @path: its name
 * @func: runs it
 * @data: for @func
 */
void case_add(const char *path, void (*func)(const void *data),
              const void *data);

Rig *rig_new(void);
Port *rig_tap(Rig *r, const char *id, unsigned bits);
Port *rig_wire(Rig *r, const char *id);

/**
 * rig_tap_fd() - Add a TAP netdev with a guest on an open file descriptor
 * @fd: the caller's, closed by nobody else
 * Return: the inside
 */
int rig_tap_fd(Rig *r, const char *id, int fd);

/**
 * rig_stream() - Add a netdev whose network is one stream of frames
 *
 * Its outside is a stream, each packet behind its length: see send_frame().
 */
Port *rig_stream(Rig *r, const char *id);

/**
 * rig_chardev() - Add a connected socket chardev
 * Return: the test's end of it
 */
int rig_chardev(Rig *r, const char *id);

/**
 * rig_server() - Add a socket chardev that waits for connections
 * Return: its path, for rig_connect(); free with g_free()
 */
char *rig_server(Rig *r, const char *id);
int rig_connect(Rig *r, const char *path);
void rig_close(Rig *r, int fd);

/**
 * rig_keep_fd() - Close a file descriptor with the rig
 * Return: @fd
 */
int rig_keep_fd(Rig *r, int fd);

/**
 * rig_give_fd() - Let QEMU inherit a file descriptor
 * Return: @fd; open here until rig_start()
 */
int rig_give_fd(Rig *r, int fd);

void rig_start(Rig *r);
void rig_free(Rig *r);

/**
 * rig_add() - Create a redirector
 * @props: as on the command line: "id=f0,netdev=n,outdev=c"
 */
void rig_add(Rig *r, const char *props);

/**
 * rig_add_error() - Try to create a redirector that must be refused
 * Return: the reply's "error"
 */
QDict *rig_add_error(Rig *r, const char *props);

/**
 * rig_has_object() - Ask whether QEMU is built with a type of filter
 */
bool rig_has_object(Rig *r, const char *type);
void rig_del(Rig *r, const char *id);
void rig_set(Rig *r, const char *id, const char *prop, const char *value);
void rig_stop(Rig *r);
void rig_cont(Rig *r);

/**
 * rig_sync() - Ask QEMU something, twice
 *
 * Once it has answered its main loop has been round.
 * Return: the longer answer's time, microseconds
 */
int64_t rig_sync(Rig *r);
unsigned rig_count_fds(Rig *r);

/**
 * rig_info() - What query-filter-redirectors tells about one redirector
 * Return: new reference, NULL if there is no such redirector
 */
QDict *rig_info(Rig *r, const char *id);

/**
 * rig_stat() - One number of it
 * @path: such as "input.stats.packets" or "chain-packets"
 */
uint64_t rig_stat(Rig *r, const char *id, const char *path);
char *rig_state(Rig *r, const char *id, const char *end);
void rig_wait_stat(Rig *r, const char *id, const char *path, uint64_t value);
void rig_wait_stat_min(Rig *r, const char *id, const char *path, uint64_t min);

/**
 * rig_wait_tx_packets() - Wait until a TAP's readers have taken some packets
 */
void rig_wait_tx_packets(Rig *r, const Port *tap, uint64_t value);
void rig_wait_state(Rig *r, const char *id, const char *end,
                    const char *state);

/* Where a redirector is on the way from here to another host. */
void rig_wait_phase(Rig *r, const char *id, const char *phase);

/* Migrate to a file, and wait until that has completed. */
void rig_migrate(Rig *r, const char *file);

/* What query-status calls the machine's state; free with g_free(). */
char *rig_runstate(Rig *r);
void rig_wait_runstate(Rig *r, const char *state);

#define assert_stat(r, id, path, value) \
    g_assert_cmpuint(rig_stat(r, id, path), ==, value)

/*
 * Many cases have the same rig: a redirector f0 on netdev n, a wire; netdev x,
 * a TAP; and chardevs ci and co, which the redirector may have as its indev
 * and outdev.
 */
typedef struct Bench {
    Rig *r;
    Port *n;
    Port *x;
    int ci;
    int co;
} Bench;

Bench bench_new(void);
Bench bench_start(const char *props);

/* Interfaces, all by ioctl or netlink in the test's own namespace. */

/* A way out for programs that look for one: an address and a default route. */
void if_set_route(const char *ifname, const char *address,
                  const char *netmask, const char *gateway);
int tap_open(char *ifname, bool multi_queue);

/**
 * if_open() - Open a packet socket that sends to a TAP's reader and hears
 *             its writer
 */
int if_open(const char *ifname);
void if_set_up(const char *ifname, bool up);
void if_rename(const char *ifname, const char *new_name); /* down and up */
void if_set_mtu(const char *ifname, int mtu);
void if_set_mac(const char *ifname, uint8_t last);
void if_set_txqueuelen(const char *ifname, int len);
void if_delete(const char *ifname);

/**
 * if_move() - Move an interface to another network namespace
 * @from: file descriptor of the namespace it is in; -1: the test's own
 * @to: file descriptor of the other one
 */
void if_move(const char *ifname, int from, int to);

/**
 * netns_open() - Get a network namespace
 * @create: a new one, not the test's own
 * Return: file descriptor
 */
int netns_open(bool create);

/**
 * macvtap_open() - Create a macvtap above another interface
 * Return: its file descriptor, or -1: then the case has been skipped
 */
int macvtap_open(const char *ifname, const char *lower);

/**
 * if_tx_packets() - How many packets a TAP's readers took
 */
uint64_t if_tx_packets(const char *ifname);

/* Longest packet that the tests use. */
#define PACKET_MAX 70000

/*
 * Test packets are Ethernet frames of at least 60 bytes of a private type
 * that carry a number and a pattern made from it.
 */
void packet_fill(uint8_t *packet, size_t size, uint32_t seq);
uint32_t packet_seq(const uint8_t *packet);
void packet_check(const uint8_t *packet, size_t size);

void send_raw(int fd, const void *packet, size_t size);
size_t recv_raw(int fd, void *packet);
size_t read_raw(int fd, void *packet);      /* from a TAP, not a socket */
void send_packet(int fd, size_t size, uint32_t seq);
void send_packets(int fd, size_t size, uint32_t first, unsigned n);
void expect_packet(int fd, size_t size, uint32_t seq);
void expect_packets(int fd, size_t size, uint32_t first, unsigned n);

/* A packet socket remembers that its interface was down. */
void clear_error(int fd);

/* Nothing is there now. */
void expect_silence(int fd);
void expect_eof(int fd);

/* The stream of a redirector; vnet: vnet_hdr_support=on */
#define NO_VNET (-1)
void send_bytes(int fd, const void *buf, size_t size);
void recv_bytes(int fd, void *buf, size_t size);

/**
 * send_frame_raw() - Send one packet on a stream
 * @vnet: length of the vnet header that @data begins with, or NO_VNET
 */
void send_frame_raw(int fd, const void *data, size_t size, int vnet);

/**
 * recv_frame() - Receive one packet from a stream
 * @vnet: length of the vnet header that is expected, or NO_VNET
 * Return: bytes in @data, vnet header included
 */
size_t recv_frame(int fd, void *data, int vnet);
void send_frame(int fd, size_t size, uint32_t seq, int vnet);
void send_frames(int fd, size_t size, uint32_t first, unsigned n);
void expect_frame(int fd, size_t size, uint32_t seq, int vnet);
void expect_frames(int fd, size_t size, uint32_t first, unsigned n);

/* A file that filter-dump writes, as far as it is written. */
typedef struct PcapRecord {
    int64_t time_us;
    size_t size;            /* on the wire */
    size_t len;             /* in the file */
    const uint8_t *data;
} PcapRecord;

typedef struct Pcap {
    char *text;
    PcapRecord records[1000];
    unsigned n;
} Pcap;

/**
 * pcap_read() - Read a file
 * @p: all zero, or one that has been read
 */
void pcap_read(Pcap *p, const char *file);
void pcap_clear(Pcap *p);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Pcap, pcap_clear)

/* Packets or stream frames sent by a thread of their own. */
typedef struct Flood {
    GThread *thread;
    int fd;
    size_t size;
    bool stream;
    uint32_t limit;
    int stop;
    uint32_t sent;
} Flood;

#define NO_LIMIT UINT32_MAX

/**
 * flood_start() - Send packets numbered from 0 on
 * @limit: how many, or NO_LIMIT: until flood_stop()
 * @stream: as frames on a stream; else one packet a message
 */
Flood *flood_start(int fd, size_t size, uint32_t limit, bool stream);

/**
 * flood_stop() - Stop a flood at once
 * Return: number of packets sent
 */
uint32_t flood_stop(Flood *f);

/**
 * flood_finish() - Wait until a flood has sent all it should
 * Return: number of packets sent
 */
uint32_t flood_finish(Flood *f);

/* What arrives is read by a thread and thrown away. */
typedef struct Drain {
    GThread *thread;
    int fd;
    int stop;
} Drain;

Drain *drain_start(int fd);
void drain_stop(Drain *d);

/*
 * A QEMU that doesn't answer any more would keep the test waiting for ever:
 * it is killed, and the case fails.
 */
typedef struct Watchdog {
    GThread *thread;
    pid_t pid;
    int stop;
} Watchdog;

Watchdog *watchdog_start(Rig *r);
void watchdog_stop(Watchdog *w);

/* The main loop comes round, and soon. */
void expect_answers(Rig *r);

/* Bytes of memory that QEMU uses. */
size_t rig_memory(Rig *r);

/* What queues may hold, and what goes with it. */
#define MEMORY_MAX (32 * 1024 * 1024)

/**
 * run_isolated() - Run a function in a thread of its own
 *
 * Capabilities and namespaces belong to threads; what @func changes there
 * ends with it.  A QEMU started in it must be stopped in it.
 */
void run_isolated(void (*func)(const void *data), const void *data);

/* Put this thread, and the programs that it starts, in a network of its own. */
void enter_new_netns(void);

/* Inode number of this thread's network namespace. */
uint64_t netns_inode(void);

#define CAP_ALL UINT64_MAX
#define CAP_BIT(cap) (1ull << (cap))

/* Take capabilities from this thread and the programs that it starts. */
void drop_caps(uint64_t caps);

/*
 * Make the kernel look to this thread and the programs that it starts as one
 * before Linux 6.6, without PACKET_VNET_HDR_SZ.
 */
void deny_vnet_hdr_sz(void);

#endif /* FILTER_REDIRECTOR_HELPERS_H */
