import java.net.Authenticator;
import java.net.PasswordAuthentication;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/**
 * Calls a URL with the proxy and trust store of the system properties; prints body, status and version.
 * A name and a key after the URL are sent to a proxy that asks for credentials.
 */
public class Get {
    public static void main(String[] arguments) throws Exception {
        HttpClient.Builder builder = HttpClient.newBuilder();
        if (arguments.length == 3) {
            builder.authenticator(new Authenticator() {
                @Override
                protected PasswordAuthentication getPasswordAuthentication() {
                    return new PasswordAuthentication(arguments[1], arguments[2].toCharArray());
                }
            });
        }
        HttpClient client = builder.build();
        HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
        try {
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.body() + " " + answer.statusCode() + " " + answer.version());
        } catch (javax.net.ssl.SSLException failed) {
            Throwable cause = failed;
            while (cause.getCause() != null) {
                cause = cause.getCause();
            }
            System.out.println("refused: " + cause.getMessage());
        }
    }
}
