import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CompletionStage;

/** Sends each line of its input over a WebSocket, and prints each message that comes, as a line. */
public class SocketHost {
    private static final class Printer implements WebSocket.Listener {
        private final PrintStream output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        private final StringBuilder message = new StringBuilder();

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            message.append(data);
            if (last) {
                output.println(message.toString().replace("\n", " "));
                message.setLength(0);
            }
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket socket, int status, String reason) {
            Runtime.getRuntime().halt(1);
            return null;
        }
    }

    public static void main(String[] args) throws Exception {
        WebSocket socket = HttpClient.newHttpClient().newWebSocketBuilder()
            .buildAsync(URI.create(args[0]), new Printer()).join();
        BufferedReader asked = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = asked.readLine(); line != null; line = asked.readLine()) {
            socket.sendText(line, true).join();
        }
        Runtime.getRuntime().halt(0);
    }
}
