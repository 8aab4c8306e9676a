/*
 * QTest of filter-redirector's netdev endpoints: errors
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/wait.h>
#include <linux/capability.h>
#include "filter-redirector-helpers.h"

#define ID "filter-redirector 'f0': "

/*
 * Errors that need nothing but a command line
 */

/* Netdevs and chardevs for the objects that must be refused. */
#define ERROR_ARGS \
    "-netdev tap,id=x,ifname=tap-x,script=,downscript=,vhost=off " \
    "-netdev tap,id=y,ifname=tap-y,script=,downscript=,vhost=off " \
    "-netdev tap,id=m,ifname=tap-m,queues=2,script=,downscript=," \
    "vhost=off " \
    "-netdev hubport,id=n,hubid=0 -netdev hubport,id=hub,hubid=0 " \
    "-netdev socket,id=sock,listen=:0 " \
    ERROR_ARGS_USER \
    "-chardev null,id=c0 -chardev null,id=c1 -chardev null,id=busy " \
    "-object filter-redirector,id=first,netdev=n,outdev=busy "

/* Chardevs of kinds that can't be used; some need an interface that is up. */
#define ERROR_KINDS \
    "-chardev udp,id=udp,host=127.0.0.1,port=9 " \
    "-chardev ringbuf,id=rb,size=4096 -chardev null,id=mux,mux=on " \
    "-chardev null,id=c2 -chardev hub,id=chub,chardevs.0=c2 " \
    "-chardev socket,id=tel,telnet=on,server=on,wait=off,host=127.0.0.1," \
    "port=0 "

#ifdef CONFIG_SLIRP
#define ERROR_ARGS_USER "-netdev user,id=user "
#else
#define ERROR_ARGS_USER ""
#endif

#define GOOD "id=f0,netdev=n,in_netdev=x,outdev=c0"

typedef struct ErrorCase {
    const char *name;
    const char *props;
    const char *message;
    const char *class;      /* "GenericError" if NULL */
} ErrorCase;

#define MULTI_QUEUE \
    ID "netdev 'm' has 2 queues, and the filter chain is that of the first " \
    "one: join 'in_netdev' to 'outdev' or 'indev' to 'out_netdev', or hand " \
    "over with 'outdev', 'enable_when_stopped=on' and " \
    "'enable_when_running=off'"

#define NO_STREAM(property, id, type) \
    ID property " '" id "' is a chardev of type '" type "', which does not " \
    "carry a stream of packets: use a socket, pipe, file, pty, stdio, serial " \
    "or null"
#define TELNET(property) \
    ID property " 'tel' speaks telnet, which does not carry all bytes as " \
    "they are: leave 'telnet' and 'tn3270' off"

static const ErrorCase errors[] = {
    { "no-endpoint", "id=f0,netdev=n,queue=all",
      ID "one of 'indev', 'outdev', 'in_netdev' and 'out_netdev' must be "
      "set" },
    { "no-endpoint-enabled", "id=f0,netdev=n,enable_when_stopped=on",
      ID "one of 'indev', 'outdev', 'in_netdev' and 'out_netdev' must be "
      "set" },
    { "two-netdevs", "id=f0,netdev=n,in_netdev=x,out_netdev=y",
      ID "'in_netdev' ('x') and 'out_netdev' ('y') cannot be used together" },
    { "two-inputs", "id=f0,netdev=n,in_netdev=x,indev=c0",
      ID "'in_netdev' ('x') and 'indev' ('c0') cannot be used together: a "
      "redirector has one input" },
    { "two-inputs-output", "id=f0,netdev=n,in_netdev=x,indev=c0,outdev=c1",
      ID "'in_netdev' ('x') and 'indev' ('c0') cannot be used together: a "
      "redirector has one input" },
    { "two-outputs", "id=f0,netdev=n,out_netdev=x,outdev=c1",
      ID "'out_netdev' ('x') and 'outdev' ('c1') cannot be used together: a "
      "redirector has one output" },
    { "never", "id=f0,netdev=x,outdev=c0,enable_when_running=off",
      ID "'enable_when_running' and 'enable_when_stopped' are both off: it "
      "would never work" },
    { "same-chardev", "id=f0,netdev=n,indev=c0,outdev=c0",
      ID "'indev' and 'outdev' are both 'c0': use two character devices" },
    { "unknown-in", "id=f0,netdev=n,in_netdev=nope,outdev=c0",
      ID "in_netdev 'nope': there is no netdev of this id",
      "DeviceNotFound" },
    { "unknown-out", "id=f0,netdev=n,out_netdev=nope,indev=c0",
      ID "out_netdev 'nope': there is no netdev of this id",
      "DeviceNotFound" },
    { "hubport-in", "id=f0,netdev=n,in_netdev=hub,outdev=c0",
      ID "in_netdev 'hub' is a netdev of type 'hubport': only a TAP has an "
      "interface for a packet socket" },
    { "hubport-out", "id=f0,netdev=n,out_netdev=hub,indev=c0",
      ID "out_netdev 'hub' is a netdev of type 'hubport': only a TAP has an "
      "interface for a packet socket" },
    { "socket-in", "id=f0,netdev=n,in_netdev=sock",
      ID "in_netdev 'sock' is a netdev of type 'socket': only a TAP has an "
      "interface for a packet socket" },
#ifdef CONFIG_SLIRP
    { "user-in", "id=f0,netdev=n,in_netdev=user,outdev=c0",
      ID "in_netdev 'user' is a netdev of type 'user': only a TAP has an "
      "interface for a packet socket" },
    { "user-out", "id=f0,netdev=n,out_netdev=user",
      ID "out_netdev 'user' is a netdev of type 'user': only a TAP has an "
      "interface for a packet socket" },
#endif
    { "in-fd-alone", "id=f0,netdev=n,in_netdev_fd=0,indev=c0",
      ID "'in_netdev_fd' needs 'in_netdev', the netdev that the packet socket "
      "is for" },
    { "out-fd-alone", "id=f0,netdev=n,out_netdev_fd=0,in_netdev=x",
      ID "'out_netdev_fd' needs 'out_netdev', the netdev that the packet "
      "socket is for" },
    { "filter-words", "id=f0,netdev=n,in_netdev=x,outdev=c0,filter=ip",
      ID "filter: does not begin with the number of instructions, as "
      "'tcpdump -ddd' prints it" },
    { "filter-empty", "id=f0,netdev=n,in_netdev=x,outdev=c0,filter=0",
      ID "filter: has 0 instructions, not 1 to 4089" },
    { "filter-alone", "id=f0,netdev=n,outdev=c0,filter=1",
      ID "'filter' needs 'in_netdev'" },
    { "snaplen-alone", "id=f0,netdev=n,outdev=c0,snaplen=64",
      ID "'snaplen' needs 'in_netdev'" },
    { "ring-tiny", "id=f0,netdev=n,in_netdev=x,outdev=c0,ring_size=1",
      ID "ring_size 1 is out of range: use 524288 to 1073741824 bytes" },
    { "ring-small", "id=f0,netdev=n,in_netdev=x,outdev=c0,ring_size=524287",
      ID "ring_size 524287 is out of range: use 524288 to 1073741824 bytes" },
    { "ring-zero", "id=f0,netdev=n,in_netdev=x,outdev=c0,ring_size=0",
      ID "ring_size 0 is out of range: use 524288 to 1073741824 bytes" },
    { "ring-big", "id=f0,netdev=n,in_netdev=x,outdev=c0,ring_size=1073741825",
      ID "ring_size 1073741825 is out of range: use 524288 to 1073741824 "
      "bytes" },
    { "ring-alone", "id=f0,netdev=n,outdev=c0,ring_size=1048576",
      ID "'ring_size' needs 'in_netdev'" },
    { "ring-out", "id=f0,netdev=n,out_netdev=x,ring_size=1048576",
      ID "'ring_size' needs 'in_netdev'" },
    { "no-outdev", "id=f0,netdev=n,in_netdev=x,outdev=nope",
      ID "outdev 'nope': there is no chardev of this id", "DeviceNotFound" },
    { "no-indev", "id=f0,netdev=n,out_netdev=x,indev=nope",
      ID "indev 'nope': there is no chardev of this id", "DeviceNotFound" },
    { "no-outdev-enabled",
      "id=f0,netdev=x,outdev=nope,enable_when_stopped=on",
      ID "outdev 'nope': there is no chardev of this id", "DeviceNotFound" },
    { "classic-no-indev", "id=f0,netdev=n,indev=nope",
      ID "indev 'nope': there is no chardev of this id", "DeviceNotFound" },
    { "classic-no-outdev", "id=f0,netdev=n,outdev=nope",
      ID "outdev 'nope': there is no chardev of this id", "DeviceNotFound" },
    { "busy-outdev", "id=f0,netdev=n,in_netdev=x,outdev=busy",
      ID "chardev 'busy' is already in use" },
    { "busy-indev", "id=f0,netdev=n,out_netdev=x,indev=busy",
      ID "chardev 'busy' is already in use" },
    { "udp-in", "id=f0,netdev=n,indev=udp", NO_STREAM("indev", "udp", "udp") },
    { "udp-out", "id=f0,netdev=n,outdev=udp",
      NO_STREAM("outdev", "udp", "udp") },
    { "ringbuf-in", "id=f0,netdev=n,indev=rb",
      NO_STREAM("indev", "rb", "ringbuf") },
    { "ringbuf-out", "id=f0,netdev=n,in_netdev=x,outdev=rb",
      NO_STREAM("outdev", "rb", "ringbuf") },
    { "mux-in", "id=f0,netdev=n,indev=mux", NO_STREAM("indev", "mux", "mux") },
    { "mux-out", "id=f0,netdev=n,outdev=mux",
      NO_STREAM("outdev", "mux", "mux") },
    { "hub-in", "id=f0,netdev=n,indev=chub",
      NO_STREAM("indev", "chub", "hub") },
    { "hub-out", "id=f0,netdev=n,outdev=chub",
      NO_STREAM("outdev", "chub", "hub") },
    { "telnet-in", "id=f0,netdev=n,indev=tel", TELNET("indev") },
    { "telnet-out", "id=f0,netdev=n,outdev=tel", TELNET("outdev") },
    { "multi-queue-classic", "id=f0,netdev=m,outdev=c0",
      MULTI_QUEUE },
    { "multi-queue-hand-over",
      "id=f0,netdev=m,outdev=c0,enable_when_stopped=on",
      MULTI_QUEUE },
    { "multi-queue-chain-out", "id=f0,netdev=m,in_netdev=x",
      MULTI_QUEUE },
    { "multi-queue-chain-in", "id=f0,netdev=m,out_netdev=x",
      MULTI_QUEUE },
};

static void expect_error(Rig *r, const char *props, const char *message,
                         const char *class)
{
    QDict *error = rig_add_error(r, props);

    g_assert_cmpstr(qdict_get_str(error, "desc"), ==, message);
    g_assert_cmpstr(qdict_get_str(error, "class"), ==,
                    class ?: "GenericError");
    qobject_unref(error);
}

/* An error reply, nothing left open, QEMU goes on, and the id is free. */
static void test_error_qmp(const void *data)
{
    const ErrorCase *c = data;
    Rig *r = rig_new();
    unsigned fds;

    if_set_up("lo", true);
    g_string_append(r->args, ERROR_ARGS ERROR_KINDS);
    rig_start(r);
    rig_sync(r);
    fds = rig_count_fds(r);
    expect_error(r, c->props, c->message, c->class);
    rig_sync(r);
    g_assert_cmpuint(rig_count_fds(r), ==, fds);
    rig_add(r, GOOD);
    rig_del(r, "f0");
    rig_sync(r);
    g_assert_cmpuint(rig_count_fds(r), ==, fds);
    rig_free(r);
}

/* Everything that comes until the end of file, or the time is over. */
static char *read_all(int fd, int64_t end)
{
    GString *text = g_string_new("");
    struct pollfd p = { .fd = fd, .events = POLLIN };
    char buf[1024];
    ssize_t ret = 0;

    do {
        if (poll(&p, 1, MAX(0, end - g_get_monotonic_time()) / 1000) != 1) {
            break;
        }
        ret = read(fd, buf, sizeof(buf));
        g_string_append_len(text, buf, MAX(ret, 0));
    } while (ret > 0);
    return g_string_free(text, false);
}

/*
 * Runs a QEMU that is to end by itself.
 * Return: its standard error
 */
static char *run_failing_qemu(const char *args)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    g_autofree char *line = g_strdup_printf("exec %s %s",
                                            getenv("QTEST_QEMU_BINARY"), args);
    char *argv[] = { (char *)"/bin/sh", (char *)"-c", line, NULL };
    int fd, status;
    char *text;
    GPid pid;

    g_assert_true(g_spawn_async_with_pipes(NULL, argv, NULL,
                                           G_SPAWN_DO_NOT_REAP_CHILD, NULL,
                                           NULL, &pid, NULL, NULL, &fd, NULL));
    text = read_all(fd, end);
    close(fd);
    if (g_get_monotonic_time() >= end) {
        kill(pid, SIGKILL);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) {
        g_test_message("QEMU said: %s", text);
    }
    g_assert_true(WIFEXITED(status)); /* not accepted, and no crash */
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    return text;
}

static void expect_error_cmdline(const char *args, const char *props,
                                 const char *message)
{
    g_autofree char *line =
        g_strdup_printf("-M none -nodefaults -display none -accel qtest %s"
                        "-object filter-redirector,%s", args, props);
    g_autofree char *want = g_strdup_printf(": %s\n", message);
    g_autofree char *got = run_failing_qemu(line);
    const char *start = got;

    /* AddressSanitizer says something about QEMU's coroutines. */
    while (g_str_has_prefix(start, "==") && strchr(start, '\n')) {
        start = strchr(start, '\n') + 1;
    }
    start = strstr(start, ": ");    /* behind the program's name */
    g_assert_cmpstr(start ?: got, ==, want);
}

static void test_error_cmdline(const void *data)
{
    const ErrorCase *c = data;

    if_set_up("lo", true);
    expect_error_cmdline(ERROR_ARGS ERROR_KINDS, c->props, c->message);
}

static void add_error_cases(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        g_autofree char *qmp =
            g_strdup_printf("/filter-redirector/error/%s/qmp",
                            errors[i].name);
        g_autofree char *cmdline =
            g_strdup_printf("/filter-redirector/error/%s/cmdline",
                            errors[i].name);

        case_add(qmp, test_error_qmp, &errors[i]);
        case_add(cmdline, test_error_cmdline, &errors[i]);
    }
}

/*
 * Errors that need a special TAP or process
 */

static void test_error_removed(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", 0);

    rig_wire(r, "n");
    rig_start(r);
    if_delete(x->ifname);
    expect_error(r, "id=f0,netdev=n,in_netdev=x",
                 ID "in_netdev 'x': cannot get the interface of the TAP: "
                 "File descriptor in bad state", NULL);
    expect_error(r, "id=f0,netdev=n,out_netdev=x",
                 ID "out_netdev 'x': cannot get the interface of the TAP: "
                 "File descriptor in bad state", NULL);
    rig_free(r);
}

/* A QEMU may not open packet sockets: both ways to create the object. */
static void no_net_raw(const void *unused)
{
    Rig *r = rig_new();

    rig_tap(r, "x", 0);
    rig_wire(r, "n");
    drop_caps(CAP_BIT(CAP_NET_RAW));
    rig_start(r);
    expect_error(r, "id=f0,netdev=n,in_netdev=x",
                 ID "in_netdev 'x': a packet socket needs the capability "
                 "CAP_NET_RAW, or an open one (in_netdev_fd, out_netdev_fd): "
                 "Operation not permitted", NULL);
    expect_error(r, "id=f0,netdev=n,out_netdev=x",
                 ID "out_netdev 'x': a packet socket needs the capability "
                 "CAP_NET_RAW, or an open one (in_netdev_fd, out_netdev_fd): "
                 "Operation not permitted", NULL);
    rig_sync(r);
    rig_free(r);
    expect_error_cmdline(ERROR_ARGS, "id=f0,netdev=n,in_netdev=x",
                         ID "in_netdev 'x': a packet socket needs the "
                         "capability CAP_NET_RAW, or an open one "
                         "(in_netdev_fd, out_netdev_fd): Operation not "
                         "permitted");
    expect_error_cmdline(ERROR_ARGS, "id=f0,netdev=n,out_netdev=x",
                         ID "out_netdev 'x': a packet socket needs the "
                         "capability CAP_NET_RAW, or an open one "
                         "(in_netdev_fd, out_netdev_fd): Operation not "
                         "permitted");
}

static void test_error_permission(const void *unused)
{
    run_isolated(no_net_raw, NULL);
}

static void test_macvtap(const void *unused)
{
    Rig *r = rig_new();
    Port *y = rig_tap(r, "y", TAP_HELD);
    int fd = macvtap_open("macvtap0", y->ifname);

    if (fd >= 0) {
        g_string_append_printf(r->args, "-netdev tap,id=x,fd=%d,vhost=off ",
                               fd);
        rig_wire(r, "n");
        rig_start(r);
        expect_error(r, "id=f0,netdev=n,out_netdev=x",
                     ID "out_netdev 'x': interface 'macvtap0' is a macvtap: "
                     "injected packets would go to the network, not to the "
                     "guest", NULL);
        close(fd);
    }
    rig_free(r);
}

static void test_error_vhost(const void *unused)
{
    Rig *r = rig_new();
    QDict *error;

    if (access("/dev/vhost-net", R_OK | W_OK)) {
        g_test_skip("no /dev/vhost-net");
        rig_free(r);
        return;
    }
    g_string_append(r->args, "-netdev tap,id=v,ifname=tap-v,script=,"
                    "downscript=,vhost=on -chardev null,id=c0 ");
    rig_start(r);
    error = rig_add_error(r, "id=f0,netdev=v,outdev=c0");
    g_assert_cmpstr(qdict_get_str(error, "desc"), ==,
                    ID "netdev 'v' uses vhost, so that its packets don't pass "
                    "through QEMU: capture them with 'in_netdev', inject with "
                    "'out_netdev', or hand over a stopped guest's with "
                    "'enable_when_stopped'");
    qobject_unref(error);
    rig_add(r, "id=f0,netdev=v,in_netdev=v,outdev=c0");
    rig_free(r);
}

static void test_error_change(const void *data)
{
    const char *prop = data;
    Rig *r = rig_new();
    g_autofree char *want =
        g_strdup_printf(ID "'%s' cannot be changed after creation", prop);
    bool is_bool = g_str_has_prefix(prop, "enable_when_");
    QDict *error;

    g_string_append(r->args, ERROR_ARGS);
    rig_start(r);
    rig_add(r, GOOD);
    if (is_bool) {
        error = qtest_qmp_assert_failure_ref(
            r->qts, "{'execute': 'qom-set', 'arguments': {'path': "
            "'/objects/f0', 'property': %s, 'value': true}}", prop);
    } else if (!strcmp(prop, "ring_size")) {
        error = qtest_qmp_assert_failure_ref(
            r->qts, "{'execute': 'qom-set', 'arguments': {'path': "
            "'/objects/f0', 'property': %s, 'value': 1048576}}", prop);
    } else {
        error = qtest_qmp_assert_failure_ref(
            r->qts, "{'execute': 'qom-set', 'arguments': {'path': "
            "'/objects/f0', 'property': %s, 'value': 'y'}}", prop);
    }
    g_assert_cmpstr(qdict_get_str(error, "desc"), ==, want);
    qobject_unref(error);
    rig_free(r);
}

/* A hand-over's source connects again and again until somebody listens. */
static void test_error_connection(const void *unused)
{
    Rig *r = rig_new();
    unsigned i;

    g_string_append(r->args, "-netdev hubport,id=n,hubid=0 "
                    "-chardev socket,id=late,path=/nonexistent/socket,"
                    "reconnect-ms=1 "
                    "-object filter-redirector,id=f0,netdev=n,outdev=late ");
    rig_start(r);
    for (i = 0; i < 20; i++) {
        rig_sync(r);
        g_usleep(5000);
    }
    rig_free(r);
}

/*
 * Nothing leaks
 */

static void test_leak_failure(const void *unused)
{
    Rig *r = rig_new();
    unsigned fds, i;

    if_set_up("lo", true);
    g_string_append(r->args, ERROR_ARGS ERROR_KINDS);
    rig_start(r);
    rig_sync(r);
    fds = rig_count_fds(r);
    for (i = 0; i < 1000; i++) {
        const ErrorCase *c = &errors[i % ARRAY_SIZE(errors)];

        expect_error(r, c->props, c->message, c->class);
    }
    rig_sync(r);
    g_assert_cmpuint(rig_count_fds(r), ==, fds);
    rig_add(r, GOOD);
    rig_free(r);
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    add_error_cases();
    case_add("/filter-redirector/error/removed", test_error_removed, NULL);
    case_add("/filter-redirector/error/permission", test_error_permission,
             NULL);
    case_add("/filter-redirector/error/macvtap", test_macvtap, NULL);
    case_add("/filter-redirector/error/vhost", test_error_vhost, NULL);
    case_add("/filter-redirector/error/connection", test_error_connection,
             NULL);
    case_add("/filter-redirector/error/change/in_netdev", test_error_change,
             "in_netdev");
    case_add("/filter-redirector/error/change/out_netdev", test_error_change,
             "out_netdev");
    case_add("/filter-redirector/error/change/ring_size", test_error_change,
             "ring_size");
    case_add("/filter-redirector/error/change/enable_when_stopped",
             test_error_change, "enable_when_stopped");
    case_add("/filter-redirector/error/change/enable_when_running",
             test_error_change, "enable_when_running");
    case_add("/filter-redirector/leak/failure", test_leak_failure, NULL);

    return g_test_run();
}
