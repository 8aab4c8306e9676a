/*
 * Programs that check what the code relies on in Linux: what they share
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "kernel.h"

/* Exit statuses of a case */
enum { HOLDS, BROKEN, FAILED, SKIPPED };

_Noreturn void broken(const char *what, int line)
{
    printf("# line %d: this does not hold: %s (errno: %s)\n", line, what,
           strerror(errno));
    fflush(stdout);
    _exit(BROKEN);
}

_Noreturn void failed(const char *what, int line)
{
    printf("# line %d: cannot try it: %s: %s\n", line, what, strerror(errno));
    fflush(stdout);
    _exit(FAILED);
}

_Noreturn void skip(const char *why)
{
    printf("# %s\n", why);
    fflush(stdout);
    _exit(SKIPPED);
}

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* Return: false if this process may not have a network of its own */
static bool enter_network(void)
{
    char map[32];
    unsigned uid = getuid();

    if (unshare(CLONE_NEWNET) < 0) {
        snprintf(map, sizeof(map), "0 %u 1", uid);
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 ||
            !write_file("/proc/self/uid_map", map)) {
            return false;
        }
    }
    /* Packets of its own would come between. */
    write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    return true;
}

static int run(const Fact *fact)
{
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        if (!enter_network()) {
            skip("this process may not have a network namespace of its own");
        }
        alarm(30);
        fact->check();
        fflush(stdout);
        _exit(HOLDS);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
        return FAILED;
    }
    return WEXITSTATUS(status);
}

int check_facts(const Fact *facts, unsigned n)
{
    unsigned i;
    int result, all = EXIT_SUCCESS;

    for (i = 0; i < n; i++) {
        result = run(&facts[i]);
        printf("%s %u - %s%s\n",
               result == HOLDS || result == SKIPPED ? "ok" : "not ok", i + 1,
               facts[i].text,
               result == SKIPPED ? " # SKIP see the line above" : "");
        if (result == BROKEN || result == FAILED) {
            all = EXIT_FAILURE;
        }
    }
    printf("1..%u\n", n);
    return all;
}

/* The TAP */

static int control(void)
{
    static int fd = -1;

    if (fd < 0) {
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        need(fd >= 0);
    }
    return fd;
}

int tap_new(void)
{
    struct ifreq ifr = {
        .ifr_name = TAP_NAME,
        .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
    };
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0) {
        skip("there is no /dev/net/tun");
    }
    need(ioctl(fd, TUNSETIFF, &ifr) == 0);
    if_flags(IFF_UP, 0);
    return fd;
}

void if_flags(int set, int clear)
{
    struct ifreq ifr = { .ifr_name = TAP_NAME };

    need(ioctl(control(), SIOCGIFFLAGS, &ifr) == 0);
    ifr.ifr_flags = (ifr.ifr_flags | set) & ~clear;
    need(ioctl(control(), SIOCSIFFLAGS, &ifr) == 0);
}

void if_number(unsigned long request, int value)
{
    struct ifreq ifr = { .ifr_name = TAP_NAME, .ifr_mtu = value };

    need(ioctl(control(), request, &ifr) == 0);
}

int if_index(void)
{
    return if_nametoindex(TAP_NAME);
}

void guest_send(int tap, const struct virtio_net_hdr *hdr, const void *packet,
                size_t len)
{
    uint8_t buf[VNET_LEN + 70000] = { 0 };

    if (hdr) {
        memcpy(buf, hdr, VNET_LEN);
    }
    memcpy(buf + VNET_LEN, packet, len);
    need(write(tap, buf, VNET_LEN + len) == (ssize_t)(VNET_LEN + len));
}

void make_packet(uint8_t *packet, size_t len, uint8_t fill)
{
    memset(packet, fill, len);
    memset(packet, 2, 12);
    packet[12] = 0x88;
    packet[13] = 0xb5;
}

static size_t make_ip(uint8_t *packet, uint8_t protocol, size_t len)
{
    make_packet(packet, len, 0);
    packet[12] = 8;
    packet[13] = 0;
    packet[14] = 0x45;
    packet[16] = (len - 14) >> 8;
    packet[17] = len - 14;
    packet[22] = 64;
    packet[23] = protocol;
    memcpy(packet + 26, "\x0a\0\0\1\x0a\0\0\2", 8);
    return len;
}

size_t make_ufo(struct virtio_net_hdr *hdr, uint8_t *packet)
{
    *hdr = (struct virtio_net_hdr) {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = 3, .hdr_len = 42,
        .gso_size = 1480, .csum_start = 34, .csum_offset = 6,
    };
    return make_ip(packet, IPPROTO_UDP, 4042);
}

size_t make_tso(struct virtio_net_hdr *hdr, uint8_t *packet)
{
    size_t len = make_ip(packet, IPPROTO_TCP, 4054);

    packet[46] = 0x50;
    *hdr = (struct virtio_net_hdr) {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .hdr_len = 54,
        .gso_size = 1000, .csum_start = 34, .csum_offset = 16,
    };
    return len;
}

/* Packet sockets */

int packet_socket(int protocol)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    htons(protocol));

    if (fd < 0 && errno == EPERM) {
        skip("packet sockets are not allowed here");
    }
    need(fd >= 0);
    return fd;
}

void bind_to(int fd, int protocol)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET, .sll_protocol = htons(protocol),
        .sll_ifindex = if_index(),
    };

    need(bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
}

void set_option(int fd, int name, int value)
{
    need(setsockopt(fd, SOL_PACKET, name, &value, sizeof(value)) == 0);
}

bool readable(int fd, int ms)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    return poll(&pfd, 1, ms) > 0 && pfd.revents & POLLIN;
}

/* Rings */

uint8_t *ring_new(int fd)
{
    struct tpacket_req3 req = {
        .tp_block_size = BLOCK_SIZE, .tp_block_nr = BLOCKS,
        .tp_frame_size = 2048, .tp_frame_nr = BLOCKS * BLOCK_SIZE / 2048,
        .tp_retire_blk_tov = LATENCY_MS,
    };
    uint8_t *ring;

    set_option(fd, PACKET_VNET_HDR, 1);
    set_option(fd, PACKET_VERSION, TPACKET_V3);
    need(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req)) == 0);
    ring = mmap(NULL, BLOCKS * BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                fd, 0);
    need(ring != MAP_FAILED);
    return ring;
}

struct tpacket_hdr_v1 *ring_block(uint8_t *ring, unsigned n)
{
    struct tpacket_block_desc *desc =
        (void *)(ring + n % BLOCKS * BLOCK_SIZE);

    return &desc->hdr.bh1;
}

struct tpacket3_hdr *ring_packet(uint8_t *ring, unsigned block, unsigned n)
{
    uint8_t *base = ring + block % BLOCKS * BLOCK_SIZE;
    uint8_t *hdr = base + ring_block(ring, block)->offset_to_first_pkt;

    while (n--) {
        hdr += ((struct tpacket3_hdr *)hdr)->tp_next_offset;
    }
    expect(hdr + sizeof(struct tpacket3_hdr) <= base + BLOCK_SIZE);
    return (void *)hdr;
}

void ring_release(uint8_t *ring, unsigned n)
{
    __atomic_store_n(&ring_block(ring, n)->block_status, TP_STATUS_KERNEL,
                     __ATOMIC_RELEASE);
}

bool ring_wait(uint8_t *ring, unsigned n)
{
    unsigned i;

    for (i = 0; i < 1000; i++) {
        if (__atomic_load_n(&ring_block(ring, n)->block_status,
                            __ATOMIC_ACQUIRE) & TP_STATUS_USER) {
            return true;
        }
        usleep(1000);
    }
    return false;
}

unsigned drops(int fd)
{
    struct tpacket_stats_v3 stats;
    socklen_t len = sizeof(stats);

    need(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) == 0);
    return stats.tp_drops;
}
