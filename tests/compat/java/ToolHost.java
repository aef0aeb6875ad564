import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs the main methods of tools, one after another, in one JVM: a JVM for each would cost most of
 * the time. A line of JSON in is a run: main, args, stdin, seconds. A line out is its status and output.
 */
public class ToolHost {
    private static final int LATE = -1;

    /** The status with which the run of now ended first: some tools catch this, and exit again. */
    private static volatile Integer ended;

    private static final class Ended extends Error {
        Ended(int status) {
            super("exit " + status, null, false, false);
            if (ended == null) {
                ended = status;
            }
        }
    }

    /** What the tools print goes to the run of now. Tools may keep System.out from an earlier run. */
    private static final class Output extends OutputStream {
        private ByteArrayOutputStream run = new ByteArrayOutputStream();

        synchronized void begin() {
            run = new ByteArrayOutputStream();
        }

        synchronized String text() {
            return run.toString(StandardCharsets.UTF_8);
        }

        @Override
        public synchronized void write(int value) {
            run.write(value);
        }

        @Override
        public synchronized void write(byte[] bytes, int from, int length) {
            run.write(bytes, from, length);
        }
    }

    public static void main(String[] args) throws Exception {
        PrintStream answers = System.out;
        Output output = new Output();
        PrintStream printed = new PrintStream(output, true, StandardCharsets.UTF_8);
        System.setOut(printed);
        System.setErr(printed);
        Exit.setExitProcedure((status, message) -> { throw new Ended(status); });
        Exit.setHaltProcedure((status, message) -> { throw new Ended(status); });
        ObjectMapper json = new ObjectMapper();
        BufferedReader asked = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = asked.readLine(); line != null; line = asked.readLine()) {
            output.begin();
            int status = run(json.readTree(line));
            printed.flush();
            ObjectNode answer = json.createObjectNode();
            answer.put("status", status).put("out", output.text());
            answers.println(json.writeValueAsString(answer));
            answers.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    private static int run(JsonNode asked) throws Exception {
        String[] args = new String[asked.get("args").size()];
        for (int i = 0; i < args.length; i++) {
            args[i] = asked.get("args").get(i).asText();
        }
        System.setIn(new ByteArrayInputStream(asked.get("stdin").asText().getBytes(StandardCharsets.UTF_8)));
        ended = null;
        int[] status = {LATE};
        Thread thread = new Thread(() -> status[0] = runMain(asked.get("main").asText(), args));
        thread.setDaemon(true);
        thread.start();
        thread.join(1000L * asked.get("seconds").asLong());
        if (thread.isAlive()) {
            thread.interrupt();
        }
        return status[0];
    }

    private static int runMain(String main, String[] args) {
        try {
            Class.forName(main).getMethod("main", String[].class).invoke(null, (Object) args);
            return 0;
        } catch (InvocationTargetException error) {
            if (error.getCause() instanceof Ended) {
                return ended;
            }
            error.getCause().printStackTrace();
            return 1;
        } catch (ReflectiveOperationException error) {
            error.printStackTrace();
            return 1;
        }
    }
}
